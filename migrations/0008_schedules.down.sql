drop view ops_next_fires;
drop function ops_fire_schedule(text, text);
drop function ops_resume_schedule(text);
drop function ops_pause_schedule(text, text);
drop function ops_record_scheduled(text, timestamptz, text);
drop table ops_schedule_fires, ops_schedules;
drop function ops_guard_schedule();
