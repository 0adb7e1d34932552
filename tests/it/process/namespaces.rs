//! Two network namespaces with a cable between them (Linux, needs root).
//!
//! Dropped, it takes away what it has made. The names are drawn, so that tests may run at
//! the same time.

use std::process::{Command, Output, Stdio};

use dogsled::ambient::seeded;
use rand::Rng;

use super::cluster::told;

/// Two namespaces; the first has the addresses that end in 1, the second those that end in 2.
pub struct Cable {
    name: String,
}

impl Cable {
    /// Two namespaces that are joined; an explanation if they cannot be had here.
    pub fn lay() -> Result<Cable, String> {
        let mut rng = seeded();
        let cable = Cable { name: format!("dog{:06x}", rng.random_range(0..1 << 24)) };
        if !rustix::process::geteuid().is_root() {
            return Err("not root".into());
        }
        // Not every container may make namespaces.
        run(&["netns", "add", &cable.side(0)])?;
        run(&["netns", "add", &cable.side(1)])?;
        let (one, other) = (cable.link(0), cable.link(1));
        run(&["-n", &cable.side(0), "link", "add", &one, "type", "veth", "peer", "name", &other])?;
        run(&["-n", &cable.side(0), "link", "set", &other, "netns", &cable.side(1)])?;
        for side in 0..2 {
            let (namespace, link) = (cable.side(side), cable.link(side));
            let address = format!("{}/24", cable.address(side));
            must(&["-n", &namespace, "address", "add", &address, "dev", &link]);
            must(&["-n", &namespace, "link", "set", "lo", "up"]);
            must(&["-n", &namespace, "link", "set", &link, "up"]);
        }
        Ok(cable)
    }

    /// The name of a namespace.
    pub fn side(&self, side: usize) -> String {
        format!("{}-{side}", self.name)
    }

    fn link(&self, side: usize) -> String {
        format!("{}v{side}", self.name)
    }

    /// The address of a side.
    pub fn address(&self, side: usize) -> String {
        format!("10.213.0.{}", side + 1)
    }

    /// Pulls the cable out of the first side.
    pub fn cut(&self) {
        must(&["-n", &self.side(0), "link", "set", &self.link(0), "down"]);
    }

    /// Puts it back.
    pub fn mend(&self) {
        must(&["-n", &self.side(0), "link", "set", &self.link(0), "up"]);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The cable goes with either end. What is not there need not be taken away.
        for side in 0..2 {
            let _ = run(&["netns", "del", &self.side(side)]);
        }
    }
}

fn must(arguments: &[&str]) {
    run(arguments).unwrap_or_else(|error| panic!("{error}"));
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let output: Result<Output, _> = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("ip {}: {}", arguments.join(" "), told(&output).trim())),
        Err(error) => Err(format!("ip: {error} (package iproute2)")),
    }
}
