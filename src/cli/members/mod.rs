//! `dogsled members`: who is alive, as one node sees it or as each of them does.

mod all;

use clap::Args;

use super::exit::Exit;
use super::output::{OutputArgs, Show, count, lines, table};
use super::server::ServerArgs;
use crate::server::http::json;
use crate::types::{Health, Life};

/// `dogsled members`
#[derive(Args, Debug)]
pub struct MembersArgs {
    /// Ask every node, and show side by side what each holds of whom. The others are looked for
    /// at the addresses of the map, with HTTP ports as far from their peer ports as the asked
    /// node has them
    #[arg(long)]
    all: bool,
    /// Ask the node at this HTTP address too, and show the views side by side; may be given
    /// several times
    #[arg(long, value_name = "URL")]
    ask: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &MembersArgs) -> anyhow::Result<Exit> {
    if args.all || !args.ask.is_empty() {
        let views = all::ask(&args.server, args.all, &args.ask)?;
        args.output.print(&views)?;
        return Ok(if views.is_healthy() { Exit::Done } else { Exit::Unhealthy });
    }
    let members: json::Members = args.server.client()?.read_json("/v1/members")?;
    args.output.print(&members)?;
    let down = members.members.iter().any(|member| member.health == Health::Down);
    Ok(if down { Exit::Unhealthy } else { Exit::Done })
}

impl Show for json::Members {
    fn text(&self) -> String {
        let held = |health| self.members.iter().filter(|member| member.health == health).count();
        let text = format!(
            "{} (life {}) knows {} of at most {}, watches {} of at most {}; ill health {} of 8\n{}\n\n",
            self.node,
            self.life,
            self.known,
            count(self.k_list, "peer"),
            self.active,
            self.active_most,
            self.ill_health,
            [Health::Alive, Health::Suspect, Health::Down]
                .map(|health| format!("{} {health}", held(health)))
                .join(", ")
        );
        let columns = [
            "NODE", "ZONE", "RELATION", "HEALTH", "OWN", "A/S/D", "LIFE", "LINK", "LOAD", "RTT MS", "STRIKES",
            "P95 MS", "MISSED", "SLOW",
        ];
        let mut rows = table(&columns);
        for member in &self.members {
            let said = member.observers;
            rows.add_row([
                member.id.to_string(),
                member.zone.clone(),
                member.relation.name().to_owned(),
                member.health.to_string(),
                or_dash(member.own.as_ref().map(Health::to_string)),
                format!("{}/{}/{}", said.alive, said.suspect, said.down),
                or_dash(member.life.as_ref().map(Life::to_string)),
                if member.connected { "yes" } else { "no" }.to_owned(),
                member.load.name().to_owned(),
                or_dash(member.round_trip_us.map(milliseconds)),
                member.strikes.to_string(),
                or_dash(member.p95_us.map(milliseconds)),
                format!("{}.{} %", member.missed_of_1000 / 10, member.missed_of_1000 % 10),
                if member.slow { "slow" } else { "no" }.to_owned(),
            ]);
        }
        text + &lines(&rows)
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{}", micros / 1_000, micros / 100 % 10)
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
