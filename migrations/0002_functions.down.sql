drop view ops_dead_letters, ops_stalled_jobs, ops_queue_depth;
drop function ops_resume(uuid, text);
drop function ops_retry(uuid, text);
drop function ops_abort(uuid, text);
drop function ops_enqueue(text, jsonb, text, int, timestamptz, int, int, int, jsonb, text);
drop function ops_request_hash(text, jsonb, text, int, timestamptz, int, int, int, jsonb);
