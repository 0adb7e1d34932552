//! Connection state: who speaks, in which protocol, at which levels.

use crate::server::password;
use crate::server::resp::Shared;
use crate::server::resp::decode::integer;
use crate::server::resp::dispatch::{printable, wrong_arity};
use crate::server::resp::reply::{ErrorReply, NOT_AN_INTEGER, SYNTAX, Writer};
use crate::server::resp::session::{Begun, Call, Handled};
use crate::types::NamespaceId;

/// What this server says it is a version of: what clients may expect of commands.
pub(super) const REDIS_VERSION: &str = "7.2.4";

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_AUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
     <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version \
     at the same time";
const NO_PASSWORD_SET: &str = "ERR AUTH <password> called without any password configured for the default user. \
     Are you sure your configuration is correct?";

/// Whether this is a user and its password. Without a password set, any will do, as in Redis.
fn check(shared: &Shared, user: &[u8], password: &[u8]) -> Result<(), ErrorReply> {
    let right = match &shared.options.password {
        Some(secret) => password::matches(secret.as_bytes(), password),
        None => true,
    };
    if right && user == b"default" { Ok(()) } else { Err(WRONG_PASSWORD.into()) }
}

pub fn auth(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    let user: &[u8] = match call.args.len() {
        2 if call.shared.options.password.is_none() => return Err(NO_PASSWORD_SET.into()),
        2 => b"default",
        3 => call.args.at(1),
        _ => return Err(SYNTAX.into()),
    };
    let password = call.args.at(call.args.len() - 1);
    check(call.shared, user, password)?;
    call.session.authenticated = true;
    writer.ok();
    Ok(Begun::Replied)
}

pub fn hello(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    let args = call.args;
    let mut resp3 = call.session.resp3;
    if let Some(version) = args.get(1) {
        let version = integer(version).ok_or("ERR Protocol version is not an integer or out of range")?;
        resp3 = match version {
            2 => false,
            3 => true,
            _ => return Err("NOPROTO unsupported protocol version".into()),
        };
    }
    let mut credentials = None;
    let mut name = None;
    let mut at = 2;
    while let Some(option) = args.get(at) {
        match option.to_ascii_lowercase().as_slice() {
            b"auth" if at + 2 < args.len() => {
                credentials = Some((args.at(at + 1), args.at(at + 2)));
                at += 3;
            }
            b"setname" if at + 1 < args.len() => {
                name = Some(super::client::valid_name(args.at(at + 1))?);
                at += 2;
            }
            _ => {
                let option = crate::server::resp::dispatch::printable(option);
                return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
            }
        }
    }
    if let Some((user, password)) = credentials {
        check(call.shared, user, password)?;
        call.session.authenticated = true;
    }
    if !call.session.authenticated {
        return Err(NO_AUTH_HELLO.into());
    }
    if let Some(name) = name {
        call.session.client.names().name = name;
    }
    call.session.resp3 = resp3;
    call.session.show();
    writer.resp3 = resp3;
    writer.map(7);
    writer.bulk(b"server");
    writer.bulk(b"redis");
    writer.bulk(b"version");
    writer.bulk(REDIS_VERSION.as_bytes());
    writer.bulk(b"proto");
    writer.integer(if resp3 { 3 } else { 2 });
    writer.bulk(b"id");
    writer.integer(i64::try_from(call.session.client.id).unwrap_or(i64::MAX));
    writer.bulk(b"mode");
    writer.bulk(b"standalone");
    writer.bulk(b"role");
    writer.bulk(b"master");
    writer.bulk(b"modules");
    writer.array(0);
    Ok(Begun::Replied)
}

pub fn quit(_: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    writer.ok();
    Ok(Begun::Close)
}

pub fn reset(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    call.session.reset(call.shared.options.password.is_none());
    writer.resp3 = false;
    writer.simple("RESET");
    Ok(Begun::Replied)
}

pub fn ping(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.args.len() {
        1 => writer.simple("PONG"),
        2 => writer.bulk(call.args.at(1)),
        _ => return Err(wrong_arity("ping")),
    }
    Ok(Begun::Replied)
}

pub fn echo(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    writer.bulk(call.args.at(1));
    Ok(Begun::Replied)
}

pub fn select(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match integer(call.args.at(1)) {
        Some(0) => {
            call.session.namespace = NamespaceId::DEFAULT;
            call.session.client.names().namespace = None;
            writer.ok();
        }
        Some(_) => return Err("ERR DB index is out of range".into()),
        None => return Err(NOT_AN_INTEGER.into()),
    }
    Ok(Begun::Replied)
}

/// KV.NAMESPACE: which one, or which one from now on. What WAIT knows stays as it is.
pub fn namespace(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.args.len() {
        1 => {
            let map = call.shared.backend.map();
            // One that was removed meanwhile has no name any more.
            let named = map.namespaces.get(&call.session.namespace);
            match named {
                Some(namespace) => writer.bulk(namespace.name.as_bytes()),
                None => writer.null(),
            }
        }
        2 => {
            let name = String::from_utf8_lossy(call.args.at(1));
            let unknown = || format!("ERR there is no namespace '{}'", printable(call.args.at(1)));
            let id = call.shared.backend.map().namespace(&name).ok_or_else(unknown)?;
            call.session.namespace = id;
            call.session.client.names().namespace = (id != NamespaceId::DEFAULT).then(|| name.into_owned());
            writer.ok();
        }
        _ => return Err(wrong_arity("kv.namespace")),
    }
    Ok(Begun::Replied)
}

pub fn readonly(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    call.session.readonly = true;
    writer.ok();
    Ok(Begun::Replied)
}

pub fn readwrite(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    call.session.readonly = false;
    writer.ok();
    Ok(Begun::Replied)
}

/// KV.WITH itself never runs: what follows it does.
pub fn with(_: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    Err(wrong_arity("kv.with"))
}

/// HTTP on the RESP port is somebody's web browser being made to send commands.
pub fn foreign(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let address = call.session.client.address;
    tracing::warn!(%address, "HTTP was sent to the RESP port, probably by a browser on another's behalf; closed");
    Ok(Begun::Abort)
}
