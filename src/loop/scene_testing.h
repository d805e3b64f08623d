/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scenes of unit tests: each is a function that is played on a loop, and two tests, one for either back
 * end. The test that includes this has the stage, run_scene, which makes a loop, plays the scene and looks
 * at what is left.
 */
#pragma once

#include "base/test.h"
#include "loop/await.h"

static void run_scene(enum loop_kind, void (*scene)(void));

#define SCENE(sentence, name)                                                                      \
    static void name(void);                                                                        \
    TEST(sentence " (epoll)")                                                                      \
    {                                                                                              \
        run_scene(LOOP_EPOLL, name);                                                               \
    }                                                                                              \
    TEST(sentence " (io_uring)")                                                                   \
    {                                                                                              \
        if (!loop_probe_uring())                                                                   \
            test_skip("io_uring is not allowed here");                                             \
        run_scene(LOOP_URING, name);                                                               \
    }                                                                                              \
    static void name(void)

struct scene {
    struct loop *loop;
    void (*play)(void);
    struct task start;
};

static inline void scene_on_fiber(void *arg)
{
    struct scene *s = arg;
    s->play();
    loop_stop(s->loop);
}

static inline void scene_on_start(struct task *t)
{
    struct scene *s = CONTAINER_OF(t, struct scene, start);
    if (fiber_start(s->loop, scene_on_fiber, s) != OK)
        loop_stop(s->loop);
}

/* On a fiber, as long as the loop runs. */
static inline void scene_play(struct loop *loop, void (*play)(void))
{
    struct scene s = {loop, play, {.run = scene_on_start}};
    loop_defer(loop, &s.start);
    loop_run(loop);
}
