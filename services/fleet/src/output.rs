//! What the command line says to people; logs go elsewhere.

/// A line of what was asked for.
#[expect(clippy::print_stdout, reason = "the one place that writes to standard output")]
pub fn say(line: &str) {
    println!("{line}");
}

/// A line about what went wrong.
#[expect(clippy::print_stderr, reason = "the one place that writes to standard error")]
pub fn complain(line: &str) {
    eprintln!("{line}");
}
