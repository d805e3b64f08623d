/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running configuration is kept on disk for `run --resume`.
 */
#pragma once

#include <jansson.h>

/* Writes it to folder_autosave(); what fails is logged, and nothing else. */
void autosave(const json_t *document);
