//! The rules of the house, as tests, so that nobody has to remember them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use octroi_proto::{errors::v1::ErrorReason, event::ROUTING_KEYS};

const SERVICES: [&str; 5] = ["account", "quota", "usage", "billing", "notification"];
const LINES_MAX: usize = 500;

/// The root of the checkout.
fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Every file below `dir` with this extension, without what is built or fetched.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && !matches!(name, "target" | "node_modules") {
                open.push(path);
            } else if path.extension().is_some_and(|one| one == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Every Rust file that people write: the product and its tests.
fn all() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in ["proto", "services", "gateway", "examples", "tests"] {
        let dir = root().join(dir);
        if dir.is_dir() {
            found.extend(files(&dir, "rs")?);
        }
    }
    Ok(found)
}

/// The Rust files of the product: not of the tests.
fn product() -> Result<Vec<PathBuf>> {
    let mut found = all()?;
    found.retain(|path| !is_test(path));
    Ok(found)
}

/// Whether a file holds nothing but tests: it is below `tests/`, or named after them.
fn is_test(path: &Path) -> bool {
    let relative = path.strip_prefix(root()).unwrap_or(path);
    let below = relative.components().any(|part| part.as_os_str() == "tests");
    below
        || matches!(
            path.file_stem().and_then(|stem| stem.to_str()),
            Some("tests" | "testing")
        )
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The lines of a file before its own tests, which every file has at its end, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
}

/// The line without its comment. A text with two slashes in it is cut short, which is good enough here.
fn uncommented(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

fn none(what: &str, found: &[String]) -> Result<()> {
    ensure!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
    Ok(())
}

/// Where each crate of ours is and what it depends on, tests of its own included.
fn manifests() -> Result<BTreeMap<String, (PathBuf, BTreeSet<String>)>> {
    let mut found = BTreeMap::new();
    for path in files(root(), "toml")? {
        if path.file_name().is_none_or(|name| name != "Cargo.toml") {
            continue;
        }
        let manifest: toml::Table = read(&path)?.parse().with_context(|| shown(&path))?;
        let Some(name) = manifest
            .get("package")
            .and_then(|package| package.get("name")?.as_str())
        else {
            continue;
        };
        let mut names = BTreeSet::new();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            names.extend(
                manifest
                    .get(section)
                    .and_then(toml::Value::as_table)
                    .into_iter()
                    .flat_map(toml::Table::keys)
                    .cloned(),
            );
        }
        let dir = path.parent().unwrap_or(root()).to_owned();
        found.insert(name.to_owned(), (dir, names));
    }
    Ok(found)
}

/// What each crate of ours depends on.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let all = manifests()?.into_iter();
    Ok(all.map(|(name, (_, names))| (name, names)).collect())
}

#[test]
fn crates_depend_only_on_those_below_them() -> Result<()> {
    let service: &[&str] = &["octroi-core", "octroi-journal", "octroi-kit", "octroi-proto"];
    let mut wrong = Vec::new();
    for (name, names) in dependencies()? {
        let Some(short) = name.strip_prefix("octroi-") else {
            wrong.push(format!("{name} is not called octroi-…"));
            continue;
        };
        let allowed: &[&str] = match short {
            "core" | "journal" | "proto" => &[],
            "kit" => &["octroi-core", "octroi-proto"],
            "client" => &["octroi-journal", "octroi-proto"],
            "gateway" => &["octroi-client", "octroi-core", "octroi-kit", "octroi-proto"],
            "fleet" | "tests" => continue,
            one if SERVICES.contains(&one) => service,
            // Whoever shows how to use Octroi stands outside of it.
            _ => &["octroi-client", "octroi-proto"],
        };
        let ours = names
            .iter()
            .filter(|dependency| dependency.starts_with("octroi-"));
        wrong.extend(
            ours.filter(|dependency| !allowed.contains(&dependency.as_str()))
                .map(|dependency| format!("{name} depends on {dependency}")),
        );
    }
    none("a dependency that the design forbids", &wrong)
}

#[test]
fn every_dependency_is_used() -> Result<()> {
    // A library whose name is another than its package's, or that only generated code names.
    const EXCEPTIONS: [(&str, &str, &str); 3] = [
        ("octroi-billing", "async-stripe", "it is called stripe"),
        ("octroi-billing", "async-stripe-core", "it is called stripe_core"),
        ("octroi-proto", "tonic-prost", "the generated code names it"),
    ];
    let mut wrong = Vec::new();
    for (name, (dir, names)) in manifests()? {
        let mut text = String::new();
        for path in files(&dir, "rs")? {
            text.extend(
                read(&path)?
                    .lines()
                    .map(|line| format!("{}\n", uncommented(line))),
            );
        }
        for dependency in names {
            let library = dependency.replace('-', "_");
            let used = names_crate(&text, &library);
            let excepted = EXCEPTIONS
                .iter()
                .any(|(of, one, _)| *of == name && *one == dependency);
            match (used, excepted) {
                (false, false) => wrong.push(format!("{name} does not use {dependency}")),
                (true, true) => wrong.push(format!("{name} uses {dependency}: it needs no exception")),
                _ => {}
            }
        }
    }
    none("a dependency that nobody uses", &wrong)
}

/// Whether sources name the library `library`: in a path, or as all that an item imports.
fn names_crate(text: &str, library: &str) -> bool {
    text.match_indices(library).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + library.len()..]);
        let whole = !before.ends_with(|one: char| one.is_alphanumeric() || one == '_');
        let imports = before.ends_with("use ") && after.starts_with([';', ' ']);
        whole && (after.starts_with("::") || imports)
    })
}

#[test]
fn what_speaks_to_the_outside_lives_in_one_place_each() -> Result<()> {
    let mut wrong = Vec::new();
    for (name, names) in dependencies()? {
        for (dependency, home) in [
            ("lapin", "octroi-kit"),
            ("fred", "octroi-quota"),
            ("lettre", "octroi-notification"),
        ] {
            if names.contains(dependency) && name != home && name != "octroi-tests" {
                wrong.push(format!("{name} depends on {dependency}, which is {home}'s"));
            }
        }
        if names.iter().any(|one| one.starts_with("async-stripe")) && name != "octroi-billing" {
            wrong.push(format!(
                "{name} depends on Stripe's client, which is octroi-billing's"
            ));
        }
        if names.contains("sqlx")
            && matches!(
                name.as_str(),
                "octroi-core" | "octroi-journal" | "octroi-proto" | "octroi-client" | "octroi-gateway"
            )
        {
            wrong.push(format!("{name} has a database"));
        }
    }
    none("a dependency in the wrong place", &wrong)?;

    let mut wrong = Vec::new();
    for path in product()? {
        let shown = shown(&path);
        let service = shown
            .strip_prefix("services/")
            .and_then(|rest| rest.split('/').next())
            .unwrap_or_default();
        if !SERVICES.contains(&service) {
            continue;
        }
        for (number, line) in code(&read(&path)?) {
            let others = SERVICES.iter().filter(|other| **other != service);
            for other in others.filter(|other| uncommented(line).contains(&format!("octroi_{other}::"))) {
                wrong.push(format!("{shown}:{number}: {service} uses {other}"));
            }
        }
    }
    none("a service that uses another", &wrong)
}

#[test]
fn domains_are_pure_and_synchronous() -> Result<()> {
    const FORBIDDEN: [&str; 9] = [
        "async ",
        "tokio",
        "sqlx",
        "tracing::",
        "std::time",
        "std::env",
        "std::fs",
        "rand::",
        "SystemTime",
    ];
    let mut wrong = Vec::new();
    for path in product()? {
        let shown = shown(&path);
        if !shown.contains("/src/domain/") && !shown.ends_with("/src/domain.rs") {
            continue;
        }
        for (number, line) in code(&read(&path)?) {
            for word in FORBIDDEN.iter().filter(|word| uncommented(line).contains(**word)) {
                wrong.push(format!("{shown}:{number}: {word}"));
            }
        }
    }
    none("a domain that is not pure", &wrong)
}

#[test]
fn no_file_is_longer_than_500_lines() -> Result<()> {
    let mut wrong = Vec::new();
    for path in all()? {
        let lines = read(&path)?.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{} has {lines}", shown(&path)));
        }
    }
    none("a file that wants to be several", &wrong)
}

#[test]
fn exceptions_have_a_reason_and_nothing_is_put_off() -> Result<()> {
    let mut wrong = Vec::new();
    for path in all()? {
        let text = read(&path)?;
        for (index, line) in text.lines().enumerate() {
            // In pieces, so that this file does not find itself.
            let found = [
                concat!("#[", "allow("),
                concat!("#![", "allow("),
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
            ];
            for word in found.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: {word}", shown(&path), index + 1));
            }
        }
        let unwrap = concat!(".unwrap", "()");
        if !is_test(&path) {
            let found = code(&text).filter(|(_, line)| uncommented(line).contains(unwrap));
            wrong.extend(found.map(|(number, _)| format!("{}:{number}: {unwrap}", shown(&path))));
        }
    }
    none("an exception without a reason", &wrong)
}

#[test]
fn every_migration_can_be_taken_back() -> Result<()> {
    let mut wrong = Vec::new();
    for service in SERVICES {
        let dir = root().join("services").join(service).join("migrations");
        let mut versions = BTreeSet::new();
        for path in files(&dir, "sql")? {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default()
                .to_owned();
            let Some(stem) = name.strip_suffix(".up.sql") else {
                let up = name
                    .strip_suffix(".down.sql")
                    .map(|stem| dir.join(format!("{stem}.up.sql")));
                if up.is_none_or(|up| !up.is_file()) {
                    wrong.push(format!("{} takes nothing back", shown(&path)));
                }
                continue;
            };
            if !dir.join(format!("{stem}.down.sql")).is_file() {
                wrong.push(format!("{} has no down", shown(&path)));
            }
            let version = stem.split('_').next().unwrap_or_default().to_owned();
            if !versions.insert(version) {
                wrong.push(format!("{} has the number of another", shown(&path)));
            }
        }
    }
    none("a migration without its way back", &wrong)
}

#[test]
fn every_service_has_the_same_chassis() -> Result<()> {
    // What is added to the chassis later has another number in each service.
    for part in [
        "_chassis.up.sql",
        "_chassis.down.sql",
        "_test_clock.up.sql",
        "_test_clock.down.sql",
    ] {
        let chassis = |service: &str| -> Result<String> {
            let dir = root().join("services").join(service).join("migrations");
            let found = files(&dir, "sql")?;
            let found = found.iter().find(|path| shown(path).ends_with(part));
            read(found.with_context(|| format!("{service} has no {part}"))?)
        };
        let first = chassis("account")?;
        for service in SERVICES {
            ensure!(chassis(service)? == first, "{part} of {service} differs");
        }
    }
    Ok(())
}

#[test]
fn every_error_reason_has_its_page() -> Result<()> {
    let dir = root().join("docs/errors");
    let mut pages = BTreeSet::new();
    let mut wrong = Vec::new();
    for reason in (1..).map_while(|number| ErrorReason::try_from(number).ok()) {
        let page = format!("{}.md", reason.name().to_lowercase().replace('_', "-"));
        match read(&dir.join(&page)) {
            Ok(text) if text.contains(reason.name()) => {}
            Ok(_) => wrong.push(format!("{page} does not name {}", reason.name())),
            Err(_) => wrong.push(format!("{} has no page {page}", reason.name())),
        }
        pages.insert(page);
    }
    for path in files(&dir, "md")? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if !pages.contains(name) && name != "README.md" {
            wrong.push(format!("{name} is about no reason"));
        }
    }
    none("pages and reasons do not agree", &wrong)
}

#[test]
fn every_event_is_in_the_list() -> Result<()> {
    let list = read(&root().join("proto/octroi/events/v1/README.md"))?;
    let listed: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    ensure!(
        listed == ROUTING_KEYS,
        "the list has {listed:?}, the code {ROUTING_KEYS:?}"
    );
    Ok(())
}

#[test]
fn every_service_says_what_it_owns() -> Result<()> {
    let mut wrong = Vec::new();
    for service in SERVICES {
        let path = root().join("services").join(service).join("README.md");
        let Ok(text) = read(&path) else {
            wrong.push(format!("{service} has no README.md"));
            continue;
        };
        for part in ["owns", "does not own", "words", "times"] {
            let begins = |line: &str| {
                let line = line.trim_start_matches(['#', '*', ' ']).to_lowercase();
                let line = line.strip_prefix("it ").unwrap_or(&line);
                line.strip_prefix(part)
                    .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            };
            if !text
                .lines()
                .filter(|line| line.starts_with(['#', '*']))
                .any(begins)
            {
                wrong.push(format!("services/{service}/README.md lacks \"{part}\""));
            }
        }
    }
    none("a service that does not say what it is for", &wrong)
}

#[test]
fn every_target_of_the_makefile_is_explained() -> Result<()> {
    let text = read(&root().join("Makefile"))?;
    let mut wrong = Vec::new();
    for line in text.lines() {
        let Some((target, rest)) = line.split_once(':') else {
            continue;
        };
        let is_target = !target.is_empty()
            && target
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !rest.starts_with('=');
        if is_target
            && rest
                .split_once("## ")
                .is_none_or(|(_, help)| help.trim().is_empty())
        {
            wrong.push(target.to_owned());
        }
    }
    none("a target that `make help` does not explain", &wrong)
}
