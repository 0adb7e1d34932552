//! Reads a node's configuration: the file, then variables over it, then flags over those.
//!
//! Every problem is collected before any is reported, so that nobody has to mend a file
//! one message at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use toml::Value;

use super::sections::{self, NodeConfig};
use super::setting::Setting;
use super::validate::validate;

/// The longest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A setting from outside the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// The key, as in `requests.timeout_ms`.
    pub key: String,
    /// Its value as text.
    pub text: String,
    /// What gave it: a variable's name or a flag.
    pub from: String,
}

/// Where a setting came from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    File,
    Override(String),
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Which key, as in `requests.timeout_ms`; empty if the file as a whole is meant.
    pub key: String,
    /// The file, variable or flag that says so.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// The configuration cannot be used. Nothing was opened or changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Everything that is wrong, never nothing.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "{problem}"),
            problems => {
                write!(f, "{} problems in the configuration:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// The variable that overrides a key: `DOGSLED_REQUESTS_TIMEOUT_MS` for `requests.timeout_ms`.
pub fn environment_name(section: &str, key: &str) -> String {
    format!("DOGSLED_{}_{}", section.to_uppercase(), key.to_uppercase())
}

/// Takes the keys out of what was given, one after another, and remembers what was wrong.
pub(super) struct Reader<'a> {
    file: &'a Path,
    folder: &'a Path,
    given: BTreeMap<(String, String), (Value, Source)>,
    places: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// The setting under this key, or its default; none if that is a problem.
    pub(super) fn take<T: Setting>(&mut self, section: &str, key: &str, default: Option<T>) -> Option<T> {
        let name = format!("{section}.{key}");
        let Some((value, source)) = self.given.remove(&(section.to_owned(), key.to_owned())) else {
            self.places.insert(name.clone(), self.file.display().to_string());
            if default.is_none() {
                let what = format!("missing; it must be {}", T::EXPECTED);
                let remedy = format!("set {key} under [{section}], or {}", environment_name(section, key));
                self.report(name, self.file.display().to_string(), what, remedy);
            }
            return default;
        };
        // A path from a variable or a flag is meant from where the user stands.
        let (place, folder) = match source {
            Source::File => (self.file.display().to_string(), self.folder),
            Source::Override(from) => (from, Path::new("")),
        };
        self.places.insert(name.clone(), place.clone());
        match T::from_value(&value, folder) {
            Ok(setting) => Some(setting),
            Err(detail) => {
                let what = detail.unwrap_or_else(|| format!("{} is not {}", shown(&value), T::EXPECTED));
                self.report(name, place, what, format!("give {}", T::EXPECTED));
                None
            }
        }
    }

    fn report(&mut self, key: String, place: String, what: String, remedy: String) {
        self.problems.push(Problem { key, place, what, remedy });
    }
}

/// A value in a message: short, and never a table's whole content.
fn shown(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".into(),
        Value::Array(_) => "a list".into(),
        other => {
            let text = other.to_string();
            if text.chars().count() > 60 { text.chars().take(60).chain("…".chars()).collect() } else { text }
        }
    }
}

/// Reads and checks the configuration of a node. `environment` is what the process was
/// started with, `flags` what its command line sets, strongest last.
///
/// # Errors
/// [`ConfigError`] with everything that is wrong.
pub fn load(
    file: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: impl IntoIterator<Item = Override>,
) -> Result<NodeConfig, ConfigError> {
    let table = read_table(file).map_err(|problem| ConfigError { problems: vec![*problem] })?;
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let mut reader =
        Reader { file, folder: &folder, given: BTreeMap::new(), places: BTreeMap::new(), problems: Vec::new() };
    take_file(&mut reader, table);
    take_environment(&mut reader, environment);
    take_flags(&mut reader, flags);
    let config = NodeConfig::read(&mut reader);
    let mut problems = reader.problems;
    if let Some(config) = &config {
        problems.extend(validate(config).into_iter().map(|(key, what, remedy)| {
            let place = reader.places.get(key).cloned().unwrap_or_else(|| file.display().to_string());
            Problem { key: key.to_owned(), place, what, remedy }
        }));
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(ConfigError { problems }),
    }
}

fn read_table(file: &Path) -> Result<toml::Table, Box<Problem>> {
    let problem = |what: String, remedy: &str| {
        Box::new(Problem { key: String::new(), place: file.display().to_string(), what, remedy: remedy.to_owned() })
    };
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| problem(format!("cannot be read: {error}"), "name a readable file with --config"))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(problem(
            format!("is longer than {MAX_FILE_BYTES} bytes"),
            "name the configuration of a node with --config",
        ));
    }
    text.parse::<toml::Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        problem(format!("line {line} is not TOML: {}", error.message()), "mend that line")
    })
}

fn take_file(reader: &mut Reader<'_>, table: toml::Table) {
    let place = reader.file.display().to_string();
    for (section, content) in table {
        if section_reference(&section).is_none() {
            let remedy = suggestion(&section, section_names());
            reader.report(section, place.clone(), "unknown section".into(), remedy);
            continue;
        }
        let Value::Table(content) = content else {
            let what = format!("{} stands where a section is meant", shown(&content));
            reader.report(section.clone(), place.clone(), what, format!("write [{section}] and its keys below"));
            continue;
        };
        for (key, value) in content {
            if is_known(&section, &key) {
                reader.given.insert((section.clone(), key), (value, Source::File));
            } else {
                let remedy = suggestion(&key, key_names(&section));
                reader.report(format!("{section}.{key}"), place.clone(), "unknown key".into(), remedy);
            }
        }
    }
}

fn take_environment(reader: &mut Reader<'_>, environment: impl IntoIterator<Item = (String, String)>) {
    let mut ours: Vec<_> = environment.into_iter().filter(|(name, _)| name.starts_with("DOGSLED_")).collect();
    ours.sort();
    for (name, text) in ours {
        let lower = name["DOGSLED_".len()..].to_lowercase();
        // Variables whose name begins like no section belong to other programs.
        let Some((section, key)) = section_names()
            .into_iter()
            .find_map(|section| Some((section, lower.strip_prefix(section)?.strip_prefix('_')?.to_owned())))
        else {
            continue;
        };
        set(reader, section, &key, &text, name);
    }
}

fn take_flags(reader: &mut Reader<'_>, flags: impl IntoIterator<Item = Override>) {
    for Override { key, text, from } in flags {
        match key.split_once('.') {
            Some((section, key)) if section_reference(section).is_some() => set(reader, section, key, &text, from),
            _ => {
                let section = key.split('.').next().unwrap_or_default();
                let remedy = suggestion(section, section_names());
                reader.report(key.clone(), from, "unknown key".into(), remedy);
            }
        }
    }
}

fn set(reader: &mut Reader<'_>, section: &str, key: &str, text: &str, from: String) {
    match sections::value_of_text(section, key, text) {
        Some(value) => {
            reader.given.insert((section.to_owned(), key.to_owned()), (value, Source::Override(from)));
        }
        None => {
            let remedy = suggestion(key, key_names(section));
            reader.report(format!("{section}.{key}"), from, "unknown key".into(), remedy);
        }
    }
}

fn section_reference(section: &str) -> Option<sections::SectionReference> {
    sections::reference().into_iter().find(|reference| reference.name == section)
}

fn is_known(section: &str, key: &str) -> bool {
    key_names(section).contains(&key)
}

fn section_names() -> Vec<&'static str> {
    sections::reference().into_iter().map(|section| section.name).collect()
}

fn key_names(section: &str) -> Vec<&'static str> {
    section_reference(section)
        .map(|reference| reference.fields.into_iter().map(|field| field.key).collect())
        .unwrap_or_default()
}

/// What to do about an unknown name: the nearest known one, or all of them.
fn suggestion(unknown: &str, known: Vec<&'static str>) -> String {
    let nearest = known.iter().map(|name| (edit_distance(unknown, name), *name)).min();
    match nearest {
        Some((distance, name)) if distance <= 3 && distance < name.len() => {
            format!("did you mean '{name}'? Else take it out")
        }
        _ => format!("take it out; known are {}", known.join(", ")),
    }
}

/// Levenshtein's distance, of names: both are cut at 64 characters, for the input is anybody's.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Parses `section.key=value`, as `--set` takes it.
///
/// # Errors
/// A message if there is no `=` or no key before it.
pub fn parse_set(text: &str) -> Result<Override, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok(Override { key: key.trim().to_owned(), text: value.to_owned(), from: format!("--set {}", key.trim()) })
        }
        _ => Err("write section.key=value, as in requests.timeout_ms=800".into()),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
