/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Response matchers: what "match" of encode, intercept and reverse_proxy's handle_response, and
 * "require" of headers, hold. {"status_code": [2, 404], "headers": {"X-A": ["b*"]}}
 */
#pragma once

#include "http/module.h"

struct response_field {
    struct slice name;
    struct slice *values; /* text, with '*' at either end for any text */
    uint32_t count;
    bool absent; /* null: the field must not be there; no values: it must be there */
};

struct response_match { /* zeroed: matches every response */
    int64_t *statuses;  /* 404, or below 100 a class: 2 is 200 … 299 */
    size_t statuses_count;
    struct response_field *fields;
    size_t fields_count;
    bool by_status;
};

/* `json` is the object; NULL or null leaves a matcher that matches every response. */
enum err response_match_provision(struct response_match *, const json_t *json, struct provision *);

bool response_match(const struct response_match *, int status, const struct fields *);

/* "text", "begin*", "*end", "*part*", "*"; case counts. */
bool field_pattern_fits(struct slice pattern, struct slice value);
