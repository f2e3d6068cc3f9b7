//! `bothyctl` for a user's own computer: everything through a machine's gateway.

fn main() -> std::process::ExitCode {
    let mut arguments: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    // Whatever the file is called.
    arguments.drain(..arguments.len().min(1));
    arguments.insert(0, "bothyctl".to_owned());
    init::main(arguments)
}
