//! `/usr/sbin/init`.

fn main() -> std::process::ExitCode {
    // The kernel passes words of its command line that it does not know, in any encoding, and `args` panics on some.
    init::main(std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect())
}
