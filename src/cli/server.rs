//! Which node a command asks, and how.

use clap::Args;

use crate::client::http::HttpClient;

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
    /// A client of that node.
    ///
    /// # Errors
    /// If the address has another form.
    pub fn client(&self) -> anyhow::Result<HttpClient> {
        Ok(HttpClient::new(&self.server, self.password.as_deref())?)
    }
}
