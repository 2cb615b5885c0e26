drop table ops_metrics, ops_job_log, ops_runners;
