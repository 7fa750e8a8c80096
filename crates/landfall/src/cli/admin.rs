//! `landfall sessions` and `landfall kick`.

use clap::Args;
use landfall_event::subject::AdminCall;
use landfall_event::{DeviceId, TenantId};
use landfall_hub::{SessionView, unix_now};

use super::ClientArgs;
use super::client::{self, Connection};
use super::line::{duration, name};
use super::output::{Output, remark};
use crate::Failure;
use crate::admin::{KickReply, SessionQuery, SessionsReply};
use crate::settings::Settings;
use crate::text::{shortened, visible, visible_json};

#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Of this device only.
    #[arg(long)]
    device: Option<DeviceId>,
    /// Of this tenant only.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// One JSON object per session.
    #[arg(long)]
    json: bool,
}

impl SessionsArgs {
    fn query(&self) -> SessionQuery {
        SessionQuery {
            tenant: self.tenant.as_ref().map(ToString::to_string),
            device: self.device.as_ref().map(ToString::to_string),
            ..SessionQuery::default()
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct KickArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The device's id.
    device: DeviceId,
    /// The device's tenant.
    #[arg(long, default_value = TenantId::DEFAULT)]
    tenant: TenantId,
}

pub(super) async fn sessions(
    args: &SessionsArgs,
    settings: &Settings,
    out: &mut Output,
) -> Result<(), Failure> {
    let connection = client::connect(&args.client, settings, "sessions").await?;
    let query = args.query();
    let body = serde_json::to_vec(&query).map_err(Failure::runtime)?;
    let mut replies: Vec<SessionsReply> = answers(&connection, &AdminCall::Sessions, body).await?;
    replies.sort_by(|a, b| a.replica.cmp(&b.replica));
    if args.json {
        for reply in &replies {
            for session in &reply.sessions {
                out.line(&json_line(&reply.replica, session)?)?;
            }
        }
    } else {
        table(&replies, unix_now(), out)?;
    }
    for reply in &replies {
        let listed = u64::try_from(reply.sessions.len()).unwrap_or(u64::MAX);
        if listed < reply.total {
            let replica = visible(&reply.replica);
            remark(&format!("{replica} has {} sessions, of which {listed} are listed", reply.total));
        }
    }
    Ok(())
}

/// The session's fields and its replica, as one object.
fn json_line(replica: &str, session: &SessionView) -> Result<String, Failure> {
    let mut object = serde_json::to_value(session).map_err(Failure::runtime)?;
    if let Some(fields) = object.as_object_mut() {
        fields.insert("replica".to_owned(), replica.into());
    }
    Ok(visible_json(object.to_string().as_bytes()))
}

const TITLES: [&str; 8] = ["DEVICE", "TRANSPORT", "FROM", "SINCE", "HEARD", "IN", "OUT", "REPLICA"];

fn table(replies: &[SessionsReply], now: u64, out: &mut Output) -> Result<(), Failure> {
    let mut rows = vec![TITLES.map(str::to_owned)];
    for reply in replies {
        let mut sessions: Vec<&SessionView> = reply.sessions.iter().collect();
        sessions.sort_by_key(|session| session.connected_at);
        rows.extend(sessions.into_iter().map(|session| row(&reply.replica, session, now)));
    }
    let mut widths = [0_usize; TITLES.len()];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn row(replica: &str, session: &SessionView, now: u64) -> [String; TITLES.len()] {
    let ago = |then: u64| format!("{} ago", duration(now.saturating_sub(then)));
    [
        shortened(&name(&session.tenant, &session.endpoint_id), 40).into_owned(),
        visible(&session.transport).into_owned(),
        visible(&session.remote_address).into_owned(),
        ago(session.connected_at),
        ago(session.last_seen_at),
        session.messages_in.to_string(),
        session.messages_out.to_string(),
        visible(replica).into_owned(),
    ]
}

pub(super) async fn kick(args: &KickArgs, settings: &Settings, out: &mut Output) -> Result<(), Failure> {
    let connection = client::connect(&args.client, settings, "kick").await?;
    let call = AdminCall::Kick { tenant: args.tenant.clone(), device: args.device.clone() };
    let replies: Vec<KickReply> = answers(&connection, &call, Vec::new()).await?;
    let kicked = replies.iter().fold(0_u64, |sum, reply| sum.saturating_add(reply.kicked));
    let device = name(args.tenant.as_str(), args.device.as_str());
    match kicked {
        0 => Err(Failure::Runtime(format!("no session of {device} is open"))),
        1 => out.line(&format!("ended 1 session of {device}")),
        many => out.line(&format!("ended {many} sessions of {device}")),
    }
}

async fn answers<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    call: &AdminCall,
    body: Vec<u8>,
) -> Result<Vec<T>, Failure> {
    let messages = connection.ask(call, body).await?;
    let read = messages.iter().map(|message| serde_json::from_slice(&message.payload));
    read.collect::<Result<_, _>>().map_err(|error| {
        Failure::Runtime(format!(
            "a gateway's answer cannot be read ({error}): is it of another version than this program?"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::Printed;
    use super::*;

    fn session(device: &str, connected_at: u64) -> SessionView {
        SessionView {
            tenant: "default".into(),
            endpoint_id: device.into(),
            session_id: "01991234-5678-7fff-bfff-ffffffffffff".into(),
            epoch: 1,
            transport: "mqtt".into(),
            protocol: "MQTT/5.0".into(),
            remote_id: "c\u{1b}[2J".into(),
            remote_address: "127.0.0.1:5".into(),
            identified_by: "anonymous".into(),
            keep_alive_ms: None,
            dormant: None,
            connected_at,
            last_seen_at: connected_at,
            messages_in: 3,
            messages_out: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    #[test]
    fn sessions_are_a_table_in_the_order_of_their_beginning() {
        let sessions = vec![session("later", 9_000), session("a\u{1b}[31m", 1_000)];
        let replies = [SessionsReply { replica: "a1".into(), total: 2, sessions }];
        let printed = Printed::default();
        table(&replies, 61_000, &mut printed.output(false)).unwrap();
        let text = printed.text();
        assert_eq!(
            text,
            "DEVICE       TRANSPORT  FROM         SINCE    HEARD    IN  OUT  REPLICA\n\
             a\\u{1b}[31m  mqtt       127.0.0.1:5  60s ago  60s ago  3   0    a1\n\
             later        mqtt       127.0.0.1:5  52s ago  52s ago  3   0    a1\n"
        );
    }

    #[test]
    fn a_json_line_names_the_replica_and_moves_no_cursor() {
        let line = json_line("a1", &session("x", 1)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["replica"].as_str(), value["endpointId"].as_str()), (Some("a1"), Some("x")));
        assert_eq!(value["remoteId"], "c\u{1b}[2J");
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}
