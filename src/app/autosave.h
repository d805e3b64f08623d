/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running configuration is kept on disk for `run --resume`.
 */
#pragma once

#include "base/slice.h"

/* Writes it to folder_autosave(); what fails is logged, and nothing else. */
void autosave(struct slice document);
