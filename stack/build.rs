//! How the programs are linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The watchdog is in every function's memory. As it is static, it relocates itself when it starts, and reads a table
    // for that: packed it is a twentieth as large. A linker that does not know the word says so and goes on.
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo::rustc-link-arg-bin=watchdog=-Wl,-z,pack-relative-relocs");
    }
}
