//! A new migration file must rebuild the crate: the migrations are embedded.
fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
