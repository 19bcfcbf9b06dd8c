//! Migrations are compiled in; a change of them alone must rebuild the crate.
fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
