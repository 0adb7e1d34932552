//! Documentation that is made from the program: `docs/cli.md` from the command line,
//! `docs/configuration.md` from the table of settings. `UPDATE=1 cargo test --test it
//! cli_docs` writes them anew.

use std::fs;
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use dogsled::config;

/// Compares a page with what the program says, or writes it.
fn compare(page: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, expected).expect("the page can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let difference = found
        .lines()
        .zip(expected.lines())
        .enumerate()
        .find(|(_, (found, expected))| found != expected)
        .map(|(line, (found, expected))| format!("line {}:\n  there: {found}\n  right: {expected}", line + 1));
    assert!(
        found == expected,
        "{page} is not what the program says; UPDATE=1 cargo test --test it cli_docs mends it.\n{}",
        difference.unwrap_or_else(|| "one of them is longer".into())
    );
}

#[test]
fn the_page_of_the_command_line_is_what_the_program_says() {
    compare("docs/cli.md", &command_page());
}

#[test]
fn the_page_of_the_configuration_is_what_the_program_reads() {
    compare("docs/configuration.md", &configuration_page());
}

fn command_page() -> String {
    let mut root = dogsled::cli::command();
    root.build();
    let mut page = String::from(
        "# The command line\n\n\
         Made from the program itself; do not edit (`UPDATE=1 cargo test --test it cli_docs`).\n\n\
         Results go to stdout, as a table or, with `-o json`, as one JSON value; news and errors go to stderr.\n\n\
         Commands that ask a node give the cluster's password, if it has one, from the variable `DOGSLED_PASSWORD`.\n\n\
         | exit code | meaning |\n| --- | --- |\n\
         | 0 | done |\n\
         | 1 | an error: nothing was done, or nothing more than the message says |\n\
         | 2 | the cluster answered and is not healthy |\n\
         | 3 | a write is in doubt: it may show now, later or never |\n",
    );
    add_command(&mut page, &root, "dogsled");
    page
}

fn add_command(page: &mut String, command: &Command, name: &str) {
    let subcommands: Vec<_> = command.get_subcommands().filter(|command| command.get_name() != "help").collect();
    // A command that can do without its parts has arguments of its own.
    if subcommands.is_empty() || !command.is_subcommand_required_set() && command.get_arguments().any(is_own) {
        let arguments: Vec<_> = command.get_arguments().filter(|argument| is_own(argument)).collect();
        let (positional, flags): (Vec<&Arg>, Vec<&Arg>) =
            arguments.into_iter().partition(|argument| argument.is_positional());
        let names: Vec<_> = positional.iter().map(|argument| usage(argument)).collect();
        *page += &format!("\n## `{}`\n\n", [&[name.to_owned()], names.as_slice()].concat().join(" "));
        let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        *page += &format!("{}.\n", about.trim_end_matches('.'));
        if !positional.is_empty() || !flags.is_empty() {
            *page += "\n| argument | meaning |\n| --- | --- |\n";
        }
        for argument in positional.into_iter().chain(flags) {
            *page += &format!("| `{}` | {} |\n", usage(argument).replace('|', "\\|"), meaning(argument));
        }
    }
    for subcommand in subcommands {
        add_command(page, subcommand, &format!("{name} {}", subcommand.get_name()));
    }
}

fn is_own(argument: &Arg) -> bool {
    !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
}

fn usage(argument: &Arg) -> String {
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    if argument.is_positional() {
        return if argument.is_required_set() { format!("<{value}>") } else { format!("[{value}]") };
    }
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let flag = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    if takes_value { format!("{flag} <{value}>") } else { flag }
}

fn meaning(argument: &Arg) -> String {
    let mut text = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    let choices: Vec<_> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let flag = !matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    if !choices.is_empty() && !flag {
        text += &format!("; one of {}", choices.join(", "));
    }
    let defaults: Vec<_> = argument.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    if !defaults.is_empty() && !flag {
        text += &format!("; default `{}`", defaults.join(" "));
    }
    if argument.is_required_set() && !argument.is_positional() {
        text += "; required";
    }
    if let Some(variable) = argument.get_env() {
        text += &format!("; else the variable `{}`", variable.to_string_lossy());
    }
    text
}

fn configuration_page() -> String {
    let mut page = String::from(
        "# Configuration of a node\n\n\
         Made from the program itself; do not edit (`UPDATE=1 cargo test --test it cli_docs`).\n\n\
         One TOML file, named by `dogsled node --config FILE`. Unknown sections and keys are refused, and all\n\
         problems are told at once. Each key can be overridden: by the environment variable that is named with\n\
         it, and above that by `--set section.key=value`. Relative paths in the file begin at its folder.\n",
    );
    for section in config::reference() {
        page += &format!("\n## `[{}]`\n\n{}\n", section.name, section.doc);
        for field in section.fields {
            let default = match (&field.default, field.required) {
                (_, true) => "required".into(),
                (Some(default), _) => format!("default `{default}`"),
                (None, false) => "not set by default".into(),
            };
            let variable = config::environment_name(section.name, field.key);
            page += &format!(
                "\n### `{}.{}`\n\n{}; {default}; `{variable}`\n\n{}\n",
                section.name,
                field.key,
                capitalized(field.expected),
                field.doc
            );
        }
    }
    page
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
