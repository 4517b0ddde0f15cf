"""The names that every expression of a mapping can use, and the functions that are disabled.

    $record      of OpenAI's kinds: {resource, query, bucket, starts_at, ends_at, polled_at} of the poll the row is from
    with_dates   the record, with numeric `timestamp` and `aggregation_timestamp` as UTC dates (or times, when it is not
                 midnight)
    row_parts    what tells rows of /usage apart beside model and time: API key, project, user, operation (`completion`
                 is the usual one and left out), each after a dash; empty for a row that says none of them

The environment, further inputs and the standard streams cannot be reached, and nothing ends the process.
"""

PRELUDE = """ . as $rows | {} as $ENV | {} as $record | def env: {}; def input: error("input is not available"); def
inputs: empty; def debug: .; def debug(f): .; def stderr: .; def halt: error("halt"); def halt_error: error(.); def
halt_error(f): error(.); def input_filename: null; def input_line_number: 0; def get_search_list: []; def with_dates:
reduce ("timestamp", "aggregation_timestamp") as $name (.; if (.[$name] | type) == "number" then .[$name] |= (if . %
86400 == 0 then strftime("%Y-%m-%d") else strftime("%Y-%m-%dT%H:%M:%SZ") end) else . end); def row_parts: [(.api_key_id
// .api_key_name // .api_key_redacted), .project_id, .user_id, (.operation | select(. != "completion"))] | map(select(.
!= null and . != "") | "-" + tostring) | add // ""; $rows |
"""
