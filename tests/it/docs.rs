//! What is written about the project, against the project.

use std::fs;
use std::path::{Path, PathBuf};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = top().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A value of the package section of Cargo.toml.
fn package(key: &str) -> String {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    manifest["package"][key].as_str().expect("it is a text").to_owned()
}

/// Every page of the project.
fn pages() -> Vec<PathBuf> {
    let mut open = vec![top().join("docs")];
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "data/README.md", "certs/README.md"].map(PathBuf::from).into();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder of pages") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.strip_prefix(top()).expect("below").to_owned());
            }
        }
    }
    pages
}

/// The targets of all links in a page, outside of its code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        in_block ^= line.trim_start().starts_with("```");
        if in_block {
            continue;
        }
        // Every second part is between backquotes.
        for prose in line.split('`').step_by(2).collect::<Vec<_>>().join("x").split("](").skip(1) {
            links.extend(prose.split_once(')').map(|(target, _)| target.to_owned()));
        }
    }
    links
}

fn broken(page: &Path, text: &str) -> Vec<String> {
    let folder = top().join(page).parent().expect("a page is in a folder").to_owned();
    links(text)
        .into_iter()
        .filter(|link| !link.starts_with("https://") && !link.starts_with('#'))
        .filter(|link| !folder.join(link.split('#').next().expect("a first part")).exists())
        .collect()
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let broken = broken(&page, &read(&page));
        assert!(broken.is_empty(), "{}: {broken:?}", page.display());
    }
    let planted = "See [a](docs/nowhere.md), [b](https://x.y), [c](README.md#x), `[d](no)`.\n```\n[e](no)\n```\n";
    assert_eq!(broken(Path::new("README.md"), planted), ["docs/nowhere.md"]);
}

#[test]
fn the_readme_is_in_step_with_the_manifest() {
    let readme = read("README.md");
    let rust = package("rust-version");
    assert!(readme.contains(&format!("Rust {rust} or newer")), "the README asks for another Rust than {rust}");
    let licence = package("license");
    assert!(readme.contains(&licence), "the README names another licence than {licence}");
    for name in licence.split(" OR ") {
        let file = format!("LICENSE-{}", name.split('-').next().expect("a name").to_uppercase());
        assert!(!read(&file).is_empty());
    }
}

#[test]
fn the_changelog_begins_with_this_version() {
    let version = package("version");
    let first = read("CHANGELOG.md").lines().find_map(|line| line.strip_prefix("## ").map(str::to_owned));
    let first = first.expect("a version");
    assert_eq!(first.split(' ').next(), Some(version.as_str()), "the newest version of the changelog");
}

#[test]
fn the_architecture_is_short_and_names_every_layer() {
    let page = read("ARCHITECTURE.md");
    assert!(page.lines().count() <= 200, "ARCHITECTURE.md is longer than 200 lines");
    for entry in fs::read_dir(top().join("src")).expect("the crate") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let name = format!("| `{}/` |", path.file_name().expect("a name").to_string_lossy());
            assert!(page.contains(&name), "ARCHITECTURE.md has no row {name}");
        }
    }
}

#[test]
fn every_metric_of_the_membership_is_explained() {
    let page = read("docs/membership.md");
    let counters = dogsled::node::MembersStatus::default().counts();
    let unexplained: Vec<_> = counters.iter().filter(|(name, ..)| !page.contains(&format!("`{name}`"))).collect();
    assert!(unexplained.is_empty(), "docs/membership.md does not have {unexplained:?}");
}

/// Every command line in a page: lines of code blocks, and code in prose.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            commands.push(line.trim().trim_start_matches("$ ").to_owned());
        } else {
            commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    let of_program = |command: &String| {
        let command =
            command.split_once("dogsled ").filter(|(before, _)| is_environment(before)).map(|(_, after)| after);
        command.map(str::to_owned)
    };
    let run = |command: &String| command.strip_prefix("cargo run --release -- ").map(str::to_owned);
    commands.iter().filter_map(|command| of_program(command).or_else(|| run(command))).collect()
}

/// Nothing, or variables that are set for the command.
fn is_environment(before: &str) -> bool {
    before.split_whitespace().all(|word| word.contains('='))
}

/// What is wrong with a command line of this program, if anything. Names in prose, as
/// `dogsled up`, need not have their arguments.
fn misspelt(command: &str) -> Option<String> {
    use clap::error::ErrorKind;
    let words = command.split(['|', '>', ';', '&']).next().unwrap_or_default().split_whitespace();
    let words = words.take_while(|word| !["…", "[…]"].contains(word));
    // A capital letter stands for a number where one is meant.
    let words = words.map(|word| if word == "N" { "3" } else { word });
    match dogsled::cli::command().try_get_matches_from(std::iter::once("dogsled").chain(words)) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::DisplayHelp
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayVersion
            ) =>
        {
            Some(error.to_string())
        }
        _ => None,
    }
}

#[test]
fn every_command_in_the_pages_is_one() {
    let mut checked = 0;
    for page in pages() {
        for command in commands(&read(&page)) {
            checked += 1;
            assert_eq!(misspelt(&command), None, "{}: dogsled {command}", page.display());
        }
    }
    assert!(checked > 10, "the commands are not where they are looked for");
    let planted = commands(
        "`dogsled upp`\n```sh\n$ A=1 dogsled up --nodez 3\ncargo run --release -- down\n```\nthe dogsled runs\n",
    );
    assert_eq!(planted, ["upp", "up --nodez 3", "down"]);
    assert_eq!(planted.iter().filter(|command| misspelt(command).is_some()).count(), 2);
}
