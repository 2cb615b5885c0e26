drop function ops_why(uuid, jsonb, interval);
alter table ops_runners drop column poll_seconds, drop column type_limits;
drop function ops_resume_fleet(text);
drop function ops_pause_fleet(text);
drop table ops_fleet_changes, ops_fleet;
drop function ops_guard_fleet();
