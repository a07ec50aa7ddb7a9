//! `longshore login` and `logout`: credentials of a registry, kept where docker and podman keep them.

use longshore::registry::{self, Credential, Kept};

use super::Job;
use crate::args::{LoginArgs, LogoutArgs};
use crate::{Usage, access};

pub(super) fn login(job: &Job<'_>, args: &LoginArgs) -> anyhow::Result<()> {
    let settings = &job.access.registry;
    let credential = match (&args.username, &settings.credential) {
        (Some(user), _) if args.password_stdin => {
            Credential::Password { user: user.clone(), password: access::one_line(&job.context.cancel)? }
        }
        (None, Some(given)) => given.clone(),
        _ => {
            let error = Usage::new("a login needs a name and a password");
            return Err(error.hint("give --username USER --password-stdin, --creds USER:PASSWORD or --creds-stdin").into());
        }
    };
    registry::login(&args.registry, &credential, settings, &job.context)?;
    let host = args.registry.domain();
    match settings.files.store(host, &credential, &job.context.cancel)? {
        Kept::File(path) => {
            job.console.say(format_args!("logged in to {host}"));
            job.console.note("note", format_args!("the password is kept in {}, where whoever reads that file finds it", path.display()));
        }
        helper @ Kept::Helper(_) => job.console.say(format_args!("logged in to {host}; {helper} keeps the password")),
    }
    Ok(())
}

pub(super) fn logout(job: &Job<'_>, args: &LogoutArgs) -> anyhow::Result<()> {
    let host = args.registry.domain();
    let known = job.access.registry.files.remove(host, &job.context.cancel)?;
    let places: Vec<String> = known.iter().map(Kept::to_string).collect();
    job.console.say(match places.as_slice() {
        [] => format!("there was no login to {host}"),
        places => format!("logged out of {host}; the login was in {}", places.join(" and ")),
    });
    Ok(())
}
