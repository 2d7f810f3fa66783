//! Writes the man pages and shell completions to a directory, from the command line's one definition:
//! `cargo run --example manual -- DIR`.

use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: manual DIR")?);
    let pages = directory.join("man");
    std::fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(coracle::cli::command().disable_help_subcommand(true), &pages)?;
    let completions = directory.join("completions");
    std::fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut coracle::cli::command(), "coracle", &completions)?;
    }
    Ok(())
}
