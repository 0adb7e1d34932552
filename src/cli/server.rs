//! Which node a command asks, and how.

use std::time::Duration;

use clap::Args;

use crate::client::http::{ClientError, HttpClient};

/// Where commands look for a node unless told otherwise.
pub(super) const DEFAULT_SERVER: &str = "http://127.0.0.1:8379";

/// The choice of a node, for each command that asks one.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// The node to ask, by its HTTP address
    #[arg(long, value_name = "URL", env = "DOGSLED_SERVER", default_value = DEFAULT_SERVER)]
    server: String,
    /// The password of the cluster, which only the environment gives: arguments are seen by others
    #[arg(skip = std::env::var("DOGSLED_PASSWORD").ok())]
    password: Option<String>,
}

impl ServerArgs {
    /// The address of that node.
    pub fn address(&self) -> &str {
        &self.server
    }

    /// A client of another node of the same cluster, which gives up after so long.
    ///
    /// # Errors
    /// If the address has another form.
    pub fn client_of(&self, server: &str, timeout: Duration) -> Result<HttpClient, ClientError> {
        HttpClient::with_timeout(server, self.password.as_deref(), timeout)
    }

    /// A client of that node.
    ///
    /// # Errors
    /// If the address has another form.
    pub fn client(&self) -> anyhow::Result<HttpClient> {
        Ok(HttpClient::new(&self.server, self.password.as_deref())?)
    }
}
