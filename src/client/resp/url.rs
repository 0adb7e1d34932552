//! Addresses of servers: `redis://[user:password@]host[:port][/database]`.

use std::fmt;
use std::str::FromStr;

/// The port that Redis has registered, used where an address names none.
const DEFAULT_PORT: u16 = 6379;

/// Where a server is, and who connects.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What to authenticate with.
    pub credentials: Option<Credentials>,
    /// The database to select; 0 is selected already.
    pub database: u32,
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user; the server's default user if none.
    pub user: Option<String>,
    /// The password.
    pub password: String,
}

/// An address that cannot be understood, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}; expected redis://[user:password@]host[:port][/database]")]
pub struct TargetError {
    reason: String,
}

impl Target {
    /// A server without credentials.
    pub fn new(host: impl Into<String>, port: u16) -> Target {
        Target { host: host.into(), port, credentials: None, database: 0 }
    }

    /// Host and port as one writes them, without credentials.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Never shows the password: this is what reports and error messages print.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis://{}", self.address())?;
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let rest = match text.split_once("://") {
            Some(("redis", rest)) => rest,
            Some(("rediss", _)) => return Err(bad("TLS (rediss://) is not supported by this client")),
            Some((scheme, _)) => return Err(bad(format!("the scheme '{scheme}' is not 'redis'"))),
            None => return Err(bad(format!("'{text}' has no 'redis://'"))),
        };
        // A password may hold any character but '/' and '@' must be the last one before the host.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, place) = match authority.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, authority),
        };
        let (host, port) = split_port(place)?;
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        Ok(Target {
            host: host.to_owned(),
            port,
            credentials: userinfo.map(credentials).transpose()?,
            database: match path {
                "" => 0,
                digits => digits.parse().map_err(|_| bad(format!("'{digits}' is no database number")))?,
            },
        })
    }
}

fn split_port(place: &str) -> Result<(&str, u16), TargetError> {
    let (host, port) = if let Some(bracketed) = place.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or_else(|| bad("'[' without ']'"))?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(bad(format!("'{after}' after ']' is no port"))),
        }
    } else {
        match place.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(bad("an IPv6 address must stand in brackets, as in redis://[::1]:6379"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) => match digits.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(bad(format!("'{digits}' is no port (1 to 65535)"))),
        },
    };
    Ok((host, port))
}

fn credentials(userinfo: &str) -> Result<Credentials, TargetError> {
    let (user, password) = userinfo
        .split_once(':')
        .ok_or_else(|| bad("credentials without ':'; write user:password@, or :password@ for the default user"))?;
    let user = percent_decode(user)?;
    Ok(Credentials { user: (!user.is_empty()).then_some(user), password: percent_decode(password)? })
}

fn percent_decode(text: &str) -> Result<String, TargetError> {
    let malformed = || bad("a '%' in the credentials is not followed by two hexadecimal digits (write % as %25)");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(malformed()) };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| bad("the credentials are not UTF-8"))
}

fn bad(reason: impl Into<String>) -> TargetError {
    TargetError { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let plain: Target = "redis://127.0.0.1:7379".parse().unwrap();
        assert_eq!(plain, Target::new("127.0.0.1", 7379));
        let full: Target = "redis://us%3Aer:p%40ss:word@[::1]:7380/2".parse().unwrap();
        assert_eq!((full.host.as_str(), full.port, full.database), ("::1", 7380, 2));
        let credentials = full.credentials.as_ref().unwrap();
        assert_eq!((credentials.user.as_deref(), credentials.password.as_str()), (Some("us:er"), "p@ss:word"));
        assert_eq!(full.address(), "[::1]:7380");
        let default_user: Target = "redis://:secret@node-1".parse().unwrap();
        assert_eq!(default_user.port, 6379);
        assert_eq!(default_user.credentials.unwrap().user, None);
    }

    #[test]
    fn a_bad_address_says_what_is_wrong() {
        let cases = [
            ("127.0.0.1:7379", "has no 'redis://'"),
            ("http://h:1", "'http' is not 'redis'"),
            ("rediss://h:1", "TLS"),
            ("redis://", "host is missing"),
            ("redis://:7379", "host is missing"),
            ("redis://h:0", "'0' is no port"),
            ("redis://h:70000", "'70000' is no port"),
            ("redis://h:seven", "'seven' is no port"),
            ("redis://::1:7379", "brackets"),
            ("redis://[::1", "'[' without ']'"),
            ("redis://[::1]7379", "no port"),
            ("redis://user@h:1", "credentials without ':'"),
            ("redis://u:%zz@h:1", "hexadecimal"),
            ("redis://h:1/x", "'x' is no database number"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<Target>().unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("expected redis://"), "{text}: {message}");
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        let target: Target = "redis://u:secret@h:1".parse().unwrap();
        assert!(!format!("{target} {target:?} {:?}", target.credentials).contains("secret"));
    }
}
