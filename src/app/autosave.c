/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On the control thread, behind each configuration that was taken over and does not forbid it
 * (admin.config.persist). The file is replaced in one step, so that there is always a whole one.
 */
#include "app/autosave.h"

#include "app/folders.h"
#include "base/log.h"

void autosave(struct slice document)
{
    char folder[FOLDER_MAX], path[FOLDER_MAX], error[FOLDER_MAX + 256];
    folder_config(folder);
    folder_autosave(path);
    enum err e = folder_make(folder, 0700);
    if (e != OK) {
        LOG(LOG_ERROR, "", "unable to create folder for config autosave", LOG_CSTR("dir", folder),
            LOG_CSTR("error", err_text(e)));
        return;
    }
    e = folder_write(path, document.ptr, document.len, error, sizeof error);
    if (e != OK)
        LOG(LOG_ERROR, "", "unable to autosave config", LOG_CSTR("file", path),
            LOG_CSTR("error", error));
    else
        LOG(LOG_INFO, "", "autosaved config (load with --resume flag)", LOG_CSTR("file", path));
}
