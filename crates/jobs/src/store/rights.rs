//! What each role may do, as the database itself says it, in lines that can be compared. Grants nothing.

use sqlx::AssertSqlSafe;

use super::{ROLES, Store};
use crate::error::StoreError;

/// The rights that `opsctl db bootstrap` gives, as they are committed: what anybody has must be exactly this.
pub const EXPECTED_RIGHTS: &str = include_str!("rights.txt");

/// How far what the roles may do is from what they should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RightsApart {
    /// Rights that are missing: a program will fail over them.
    pub missing: Vec<String>,
    /// Rights that nobody should have.
    pub surplus: Vec<String>,
}

impl Store {
    /// Every right of the roles on tables, views, columns, sequences and functions of ours, one a line, sorted:
    /// `role | kind | name | right`. `public` is what every login may do.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rights(&self) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(AssertSqlSafe(RIGHTS))
            .bind(ROLES.map(str::to_owned).as_slice())
            .fetch_all(&self.pool)
            .await?)
    }

    /// What differs from [`EXPECTED_RIGHTS`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rights_apart(&self) -> Result<RightsApart, StoreError> {
        let held = self.rights().await?;
        let expected: Vec<&str> = EXPECTED_RIGHTS.lines().collect();
        let missing = expected
            .iter()
            .filter(|line| !held.iter().any(|right| right == *line));
        let missing = missing.map(|line| (*line).to_owned()).collect();
        let surplus = held
            .into_iter()
            .filter(|right| !expected.contains(&right.as_str()));
        Ok(RightsApart {
            missing,
            surplus: surplus.collect(),
        })
    }
}

/// The catalogue alone is read, so this is not checked against a schema of ours. Rights on a whole table are told once;
/// columns are told where only some are granted. Roles that are not there have no rights.
const RIGHTS: &str = r#"
with roles as (
  select r.rolname::text as name, r.oid from pg_roles r where r.rolname = any ($1)
),
relations as (
  select c.oid, c.relname::text as name, case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end as kind
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'public' and c.relname like 'ops\_%' and c.relkind in ('r', 'p', 'v', 'S')
),
functions as (
  select p.oid, p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')' as name
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
  -- What runs as a trigger only cannot be called.
  where n.nspname = 'public' and p.proname like 'ops\_%' and p.prorettype <> 'trigger'::regtype
),
lines as (
  select r.name || ' | ' || t.kind || ' | ' || t.name || ' | ' || p.privilege as line
  from roles r, relations t, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) as p (privilege)
  where t.kind <> 'sequence' and has_table_privilege(r.oid, t.oid, p.privilege)
  union all
  select r.name || ' | column | ' || t.name || '.' || a.attname || ' | ' || p.privilege
  from roles r, relations t
  join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped,
    unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as p (privilege)
  where t.kind <> 'sequence' and not has_table_privilege(r.oid, t.oid, p.privilege)
    and has_column_privilege(r.oid, t.oid, a.attnum, p.privilege)
  union all
  select r.name || ' | sequence | ' || t.name || ' | ' || p.privilege
  from roles r, relations t, unnest(array['USAGE', 'SELECT', 'UPDATE']) as p (privilege)
  where t.kind = 'sequence' and has_sequence_privilege(r.oid, t.oid, p.privilege)
  union all
  select r.name || ' | function | ' || f.name || ' | EXECUTE'
  from roles r, functions f
  where has_function_privilege(r.oid, f.oid, 'EXECUTE')
    and not exists (
      select from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
      where p.oid = f.oid and x.grantee = 0 and x.privilege_type = 'EXECUTE'
    )
  union all
  select 'public | function | ' || f.name || ' | EXECUTE'
  from functions f
  join pg_proc p on p.oid = f.oid, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
  where x.grantee = 0 and x.privilege_type = 'EXECUTE'
  union all
  select 'public | ' || t.kind || ' | ' || t.name || ' | ' || x.privilege_type
  from relations t
  join pg_class c on c.oid = t.oid, aclexplode(c.relacl) x
  where x.grantee = 0
)
select line from lines order by line collate "C"
"#;
