//! The `eec` command.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    eec::cli::main()
}
