//! What stands behind the `?`.

use std::time::Duration;

use super::encoding::percent_decode;
use super::problem::Problem;
use crate::types::ConsistencyLevel;

/// The longest `?timeout=`.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The parameters of a request, as far as it gave any. Those that a request has no use
/// for are refused: one that is misspelt would be ignored otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params {
    pub consistency: Option<ConsistencyLevel>,
    pub timeout: Option<Duration>,
    pub ttl: Option<Duration>,
    pub json: bool,
    pub prefix: Vec<u8>,
    pub limit: Option<usize>,
    pub cursor: Option<u64>,
    pub explain: bool,
}

impl Params {
    /// Reads a query of which only the `allowed` names may occur, each once.
    pub fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Params, Problem> {
        let mut params = Params::default();
        let mut seen = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode(value, true)
                .ok_or_else(|| Problem::bad_request(format!("parameter {name:?} is not percent-encoded")))?;
            if !allowed.contains(&name) {
                let names = allowed.join(", ");
                return Err(Problem::bad_request(format!("unknown parameter {name:?}; possible here: {names}")));
            }
            if seen.contains(&name) {
                return Err(Problem::bad_request(format!("parameter {name:?} is given twice")));
            }
            seen.push(name);
            params.set(name, value)?;
        }
        Ok(params)
    }

    fn set(&mut self, name: &str, value: Vec<u8>) -> Result<(), Problem> {
        if name == "prefix" {
            self.prefix = value;
            return Ok(());
        }
        let text =
            String::from_utf8(value).map_err(|_| Problem::bad_request(format!("parameter {name:?} is not UTF-8")))?;
        let invalid = |what: &str| Problem::bad_request(format!("{name}={text:?} is not {what}"));
        match name {
            "consistency" => {
                let level = text
                    .parse()
                    .map_err(|error: crate::types::UnknownLevel| Problem::bad_request(error.to_string()))?;
                self.consistency = Some(level);
            }
            "timeout" => {
                let possible = Duration::from_millis(1)..=LONGEST_TIMEOUT;
                let timeout = duration(&text).filter(|timeout| possible.contains(timeout));
                self.timeout = Some(timeout.ok_or_else(|| invalid("a time from 1ms to 60s"))?);
            }
            "ttl" => {
                let ttl = duration(&text).filter(|ttl| *ttl >= Duration::from_millis(1));
                self.ttl = Some(ttl.ok_or_else(|| invalid("a time in seconds (or with ms behind it) above zero"))?);
            }
            "format" => match text.as_str() {
                "json" => self.json = true,
                "raw" => self.json = false,
                _ => return Err(invalid("json or raw")),
            },
            "explain" => match text.as_str() {
                "true" => self.explain = true,
                "false" => self.explain = false,
                _ => return Err(invalid("true or false")),
            },
            "limit" => {
                let limit = text.parse().ok().filter(|limit| *limit > 0);
                self.limit = Some(limit.ok_or_else(|| invalid("a number above zero"))?);
            }
            "cursor" => {
                self.cursor = Some(text.parse().map_err(|_| invalid("a cursor that a page ended with"))?);
            }
            _ => return Err(Problem::bad_request(format!("unknown parameter {name:?}"))),
        }
        Ok(())
    }
}

/// Seconds (`2`, `0.5`, `2s`) or milliseconds (`250ms`).
fn duration(text: &str) -> Option<Duration> {
    if let Some(milliseconds) = text.strip_suffix("ms") {
        return digits(milliseconds).map(Duration::from_millis);
    }
    let seconds = text.strip_suffix('s').unwrap_or(text);
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    if fraction.len() > 3 {
        return None;
    }
    let milliseconds = digits(fraction)? * 10u64.pow(3 - fraction.len() as u32);
    digits(whole)?.checked_mul(1000)?.checked_add(milliseconds).map(Duration::from_millis)
}

fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_unless_they_say_otherwise() {
        let cases = [
            ("2", Some(2000)),
            ("2s", Some(2000)),
            ("0.5", Some(500)),
            ("1.25s", Some(1250)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("1.2345", None),
            ("1e3", None),
            ("1.", None),
            ("ms", None),
            ("+1", None),
            ("99999999999999999999", None),
            ("99999999999999999", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(duration(text), milliseconds.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let all = ["consistency", "timeout", "ttl", "format", "prefix", "limit", "cursor", "explain"];
        let good = Params::parse(Some("consistency=ALL&ttl=1500ms&format=json&prefix=%ff+x&limit=7&cursor=9"), &all);
        let good = good.expect("all is well formed");
        assert_eq!(good.consistency, Some(ConsistencyLevel::All));
        assert_eq!(good.ttl, Some(Duration::from_millis(1500)));
        assert_eq!((good.json, good.prefix, good.limit, good.cursor), (true, b"\xff x".to_vec(), Some(7), Some(9)));
        for bad in [
            "consistancy=one",
            "consistency=most",
            "consistency=serial",
            "consistency=one&consistency=all",
            "timeout=61",
            "timeout=0",
            "ttl=0",
            "format=xml",
            "explain=yes",
            "limit=0",
            "limit=-1",
            "cursor=x",
            "ttl=%zz",
            "ttl=%ff",
        ] {
            assert!(Params::parse(Some(bad), &all).is_err(), "{bad}");
        }
        assert!(Params::parse(Some("ttl=1"), &["timeout"]).is_err());
        assert_eq!(Params::parse(None, &[]).expect("nothing is well formed"), Params::default());
    }
}
