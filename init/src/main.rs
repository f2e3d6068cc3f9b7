//! `/usr/sbin/init`.

fn main() -> std::process::ExitCode {
    init::main(std::env::args().collect())
}
