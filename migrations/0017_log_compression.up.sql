-- What handlers print is stored while they run, and a command that prints fast waits for it. lz4 compresses text at about six
-- times the speed of PostgreSQL's own pglz and nearly as well. A server that was built without it keeps pglz.
do $$
begin
  alter table ops_job_log alter column body set compression lz4;
exception
  when feature_not_supported or invalid_parameter_value then
    raise notice 'this PostgreSQL was built without lz4: ops_job_log.body stays with pglz, which stores fast output more slowly';
end
$$;
