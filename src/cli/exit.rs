//! How the program ends, decided here and nowhere else.

use std::io::Write;
use std::process::ExitCode;

use crate::client::http::ClientError;

/// What a command came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: an error; nothing was done, or nothing more than the message says.
    Error,
    /// 2: the cluster answered and is not healthy.
    Unhealthy,
    /// 3: a write may or may not take effect.
    InDoubt,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::Unhealthy => 2,
            Exit::InDoubt => 3,
        })
    }
}

/// Something that the user is told in one message, with exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Told(pub String);

/// Decides, and tells what went wrong on stderr.
pub(super) fn of(result: anyhow::Result<Exit>) -> Exit {
    let error = match result {
        Ok(exit) => return exit,
        Err(error) => error,
    };
    // Whoever closed our output has seen enough.
    if error.chain().any(is_closed_pipe) {
        return Exit::Done;
    }
    // Nobody is left to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "dogsled: {error:#}");
    let in_doubt = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(ClientError::InDoubt(_))));
    if in_doubt { Exit::InDoubt } else { Exit::Error }
}

fn is_closed_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// How the program ends if its arguments are not understood, or ask for help.
pub(super) fn of_arguments(error: &clap::Error) -> Exit {
    let _ = error.print();
    // clap's own code for a wrong argument is 2, which means "unhealthy" here.
    if error.use_stderr() { Exit::Error } else { Exit::Done }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn each_end_has_its_code() {
        let in_doubt = Err(ClientError::InDoubt("1 of 2".into())).context("put hello");
        assert_eq!(of(in_doubt), Exit::InDoubt);
        assert_eq!(of(Err(ClientError::Refused("no".into()).into())), Exit::Error);
        assert_eq!(of(Ok(Exit::Unhealthy)), Exit::Unhealthy);
        let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(of(Err(anyhow::Error::from(closed).context("printing"))), Exit::Done);
        for (exit, code) in [(Exit::Done, 0), (Exit::Error, 1), (Exit::Unhealthy, 2), (Exit::InDoubt, 3)] {
            assert_eq!(ExitCode::from(exit), ExitCode::from(code));
        }
    }
}
