//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  bothyctl status                          services, address, problems
  bothyctl logs --function figlet --follow
  bothyctl --host http://10.0.0.7:8080 top
  bothyctl login --host http://10.0.0.7:8080

Exit codes: 0 done, 1 failed or not healthy, 2 the command line means nothing.
User and password for --host come from --user and --password-file, from BOTHY_USER and BOTHY_PASSWORD, from what
`bothyctl login` keeps in ~/.config/bothy/credentials.toml, or from a question. BOTHY_HOST stands for --host.";

/// Looks at a Bothy machine and ends it: this one, or one behind its gateway.
#[derive(Debug, Parser)]
#[command(name = "bothyctl", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Ask the machine with this gateway, such as http://10.0.0.7:8080, instead of this one
    #[arg(long, global = true, value_name = "URL")]
    pub host: Option<String>,
    /// The gateway's user
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// File whose first line is the gateway's password
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show address, services and problems; exit code 1 when not healthy
    #[command(after_help = "Examples:\n  bothyctl status\n  bothyctl status --json")]
    Status,
    /// Show services: state, process, restarts, what they use
    #[command(
        after_help = "Examples:\n  bothyctl services\n  bothyctl services gateway    with its last ends and lines"
    )]
    Services {
        /// Only this one, with its last ends and its last lines of the journal
        name: Option<String>,
    },
    /// Show the journal; the last 50 lines unless something else is said
    #[command(after_help = "Examples:\n  \
        bothyctl logs --service gateway --priority warning\n  \
        bothyctl logs --function figlet --since -1h\n  \
        bothyctl logs --boot -1 --lines 20        the end of the boot before\n  \
        bothyctl logs --grep 'time ?out' --follow\n  \
        bothyctl logs _PID=1 --output verbose     any field, all fields\n\n\
        Times are UTC: 2026-11-23 22:10, 22:10, today, yesterday, -2h, -30min.")]
    Logs(Box<LogArguments>),
    /// Show what services and functions use; on a terminal again and again until `q`
    #[command(
        after_help = "Examples:\n  bothyctl top\n  bothyctl top --once\n  bothyctl top --interval 5 --json"
    )]
    Top(TopArguments),
    /// Show the configuration in force and where each value comes from
    #[command(after_help = "Examples:\n  bothyctl config\n  bothyctl config --reveal    with passwords")]
    Config {
        /// Show secrets
        #[arg(long)]
        reveal: bool,
    },
    /// Show the gateway's user and password
    Credentials,
    /// Show the phases of start and end, in order
    Plan,
    /// Stop everything in order and power off
    #[command(
        after_help = "Examples:\n  bothyctl poweroff\n  bothyctl --host http://10.0.0.7:8080 poweroff --yes"
    )]
    Poweroff {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Stop everything in order and start again
    #[command(
        after_help = "Examples:\n  bothyctl reboot\n  bothyctl --host http://10.0.0.7:8080 reboot --yes"
    )]
    Reboot {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Erase all data and start again: the system and the boot partition's bothy.toml stay
    #[command(
        after_help = "Functions, secrets, streams, logs and what was applied on the device are gone for good.\n\nExamples:\n  bothyctl reset\n  bothyctl --host http://10.0.0.7:8080 reset --yes"
    )]
    Reset {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Try user and password for --host, and keep them
    #[command(after_help = "Example:\n  bothyctl login --host http://10.0.0.7:8080")]
    Login,
    /// Print a shell's completion
    #[command(after_help = "Example:\n  bothyctl completion bash > /etc/bash_completion.d/bothyctl")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The login at the machine's console; the supervisor starts it when somebody types
    #[command(hide = true)]
    Console,
}

#[derive(Debug, Args)]
pub(super) struct LogArguments {
    /// Of a service
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Of a function
    #[arg(long, value_name = "NAME")]
    pub function: Option<String>,
    /// Of the functions of a namespace
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Of the kernel
    #[arg(long)]
    pub kernel: bool,
    /// As serious as this or more: emerg, alert, crit, err, warning, notice, info, debug; or a range
    #[arg(long, value_name = "LEVEL")]
    pub priority: Option<String>,
    /// From this time on
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,
    /// Only so many, the last ones
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub lines: Option<u64>,
    /// Of a boot: 0 this one, -1 the one before, or an id
    #[arg(long, value_name = "BOOT", allow_hyphen_values = true)]
    pub boot: Option<String>,
    /// Whose text matches a pattern (PCRE2)
    #[arg(long, value_name = "PATTERN")]
    pub grep: Option<String>,
    /// Stay, and show what comes
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// How to show them
    #[arg(long, value_enum, default_value = "short")]
    pub output: Output,
    /// Fields that must have a value; the same field twice: one of the values
    #[arg(value_name = "FIELD=VALUE")]
    pub fields: Vec<String>,
}

/// How log entries are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Time, who, text
    Short,
    /// Every field
    Verbose,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
pub(super) struct TopArguments {
    /// Seconds that a sample covers
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub interval: f64,
    /// One sample, also on a terminal
    #[arg(long)]
    pub once: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_sound() {
        Arguments::command().debug_assert();
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("bothyctl status --json").unwrap().json);
        assert!(parse("bothyctl logs --since -1h --boot -1 _PID=1 -f").is_ok());
        assert_eq!(parse("bothyctl top --host http://a").unwrap().host.as_deref(), Some("http://a"));
        assert!(parse("bothyctl dance").is_err());
        // Arguments are everybody's to read.
        assert!(parse("bothyctl status --password x").is_err());
    }
}
