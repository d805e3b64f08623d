/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for libFuzzer's main: gives every file named on the command line, or found in a folder
 * named there, to LLVMFuzzerTestOneInput once. So each fuzzer's corpus is a test of every build.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int inputs;

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return;
    size_t cap = 1 << 20;
    uint8_t *all = malloc(cap);
    size_t size = fread(all, 1, cap, f);
    fclose(f);
    uint8_t *exact = malloc(size > 0 ? size : 1); /* so that reading one byte too far is seen */
    memcpy(exact, all, size);
    free(all);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    inputs++;
}

static void run_path(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL) {
        run_file(path);
        return;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.')
            run_file(name);
    }
    closedir(d);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        run_path(argv[i]);
    printf("%d inputs\n", inputs);
    return inputs == 0;
}
