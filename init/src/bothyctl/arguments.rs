//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  bothyctl status                          services, address, problems
  bothyctl logs --function figlet --follow
  bothyctl queue list                      asynchronous calls that were given up
  bothyctl --host http://10.0.0.7:8080 top
  bothyctl login --host http://10.0.0.7:8080

Exit codes: 0 done, 1 failed or not healthy, 2 the command line means nothing.
User and password for --host come from --user and --password-file, from BOTHY_USER and BOTHY_PASSWORD, from what
`bothyctl login` keeps in ~/.config/bothy/credentials.toml, or from a question. BOTHY_HOST stands for --host.";

const QUEUE_EXAMPLES: &str = "\
A call of /async-function/NAME waits in a queue. One that fails is made again; one that failed \
too often, or that nobody can make any more, is given up: it lies among the dead letters until it is replayed or purged.

Examples:
  bothyctl queue list
  bothyctl queue show 7
  bothyctl queue replay --all --function figlet
  bothyctl queue status CALL-ID              the whole X-Call-Id of the answer 202";

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
    /// Look after asynchronous calls: those that were given up (dead letters), and single ones by their id
    #[command(subcommand, after_help = QUEUE_EXAMPLES, disable_help_subcommand = true)]
    Queue(QueueCommand),
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

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List the dead letters, the oldest first
    #[command(after_help = "Examples:\n  \
        bothyctl queue list\n  \
        bothyctl queue list --function figlet --queue slow\n  \
        bothyctl queue list --json | wc -l")]
    List {
        /// Only of this queue
        #[arg(long, value_name = "NAME")]
        queue: Option<String>,
        /// Only of this function, such as figlet or figlet.openfaas-fn
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
    },
    /// Show one dead letter: why it was given up, and what was asked
    #[command(
        after_help = "Values of headers with secrets are not shown; --json has the body too, where it is \
        small.\n\nExamples:\n  bothyctl queue show 7\n  bothyctl queue show 7 --json"
    )]
    Show {
        /// Its number, from `bothyctl queue list`
        number: u64,
    },
    /// Put dead letters back into their queues
    #[command(
        after_help = "What cannot be put back (its function is gone) is said and does not hold up the others; the \
        exit code is 1 then.\n\nExamples:\n  \
        bothyctl queue replay 7 9\n  \
        bothyctl queue replay --all\n  \
        bothyctl queue replay --all --function figlet"
    )]
    Replay(Letters),
    /// Remove dead letters for good
    #[command(after_help = "Examples:\n  \
        bothyctl queue purge 7 9\n  \
        bothyctl queue purge --all --queue slow\n  \
        bothyctl queue purge --all --yes")]
    Purge {
        #[command(flatten)]
        letters: Letters,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show how far an asynchronous call is
    #[command(after_help = "The id is the header X-Call-Id of the answer 202.\n\nExamples:\n  \
        bothyctl queue status 3d6e4c1f-2a7b-4a51-9e0c-5b8f0d1c7a42\n  bothyctl queue status 3d6e4c1f-2a7b-4a51-9e0c-5b8f0d1c7a42 --json")]
    Status {
        /// The call's X-Call-Id
        call_id: String,
    },
    /// See to it that an asynchronous call is not made, or not again
    #[command(
        after_help = "A call that runs is ended; one that came to an end before stays as it is, and the exit code \
        is 1.\n\nExample:\n  bothyctl queue cancel 3d6e4c1f-2a7b-4a51-9e0c-5b8f0d1c7a42"
    )]
    Cancel {
        /// The call's X-Call-Id
        call_id: String,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(super) struct Letters {
    /// Their numbers, from `bothyctl queue list`
    #[arg(value_name = "NUMBER", required_unless_present = "all", conflicts_with = "all")]
    pub numbers: Vec<u64>,
    /// All that are there now
    #[arg(long)]
    pub all: bool,
    /// Of all, those of this queue
    #[arg(long, value_name = "NAME", conflicts_with = "numbers")]
    pub queue: Option<String>,
    /// Of all, those of this function, such as figlet or figlet.openfaas-fn
    #[arg(long, value_name = "NAME", conflicts_with = "numbers")]
    pub function: Option<String>,
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
        for good in [
            "list --queue a --function f.dev",
            "show 7",
            "replay 7 9",
            "replay --all --queue a",
            "purge --all --yes",
        ] {
            assert!(parse(&format!("bothyctl queue {good}")).is_ok(), "{good}");
        }
        for bad in [
            "",
            "list 7",
            "show",
            "show x",
            "replay",
            "replay 7 --all",
            "purge 7 --queue a",
            "purge --queue a",
            "status",
        ] {
            assert!(parse(format!("bothyctl queue {bad}").trim()).is_err(), "{bad}");
        }
        // Arguments are everybody's to read.
        assert!(parse("bothyctl status --password x").is_err());
    }
}
