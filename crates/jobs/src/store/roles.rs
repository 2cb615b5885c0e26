//! The three roles, each with no more rights than its program needs.

use super::Store;
use crate::error::StoreError;

/// The roles that `opsctl db bootstrap` makes. They cannot log in: grant them to the logins of the programs.
pub const ROLES: [&str; 3] = ["ops_control_plane", "ops_runner", "ops_readonly"];

const BOOTSTRAP: &str = include_str!("bootstrap.sql");

impl Store {
    /// Makes the roles where they are missing and sets their rights. Running it again changes nothing.
    ///
    /// # Errors
    /// When the login may not create roles or does not own the tables.
    pub async fn bootstrap_roles(&self) -> Result<(), StoreError> {
        sqlx::raw_sql(BOOTSTRAP).execute(&self.pool).await?;
        Ok(())
    }
}
