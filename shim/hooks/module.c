/* SPDX-License-Identifier: Apache-2.0 */
/* Modules, libraries and the linker: no argument tells what they take of the GPU's memory, so the difference that the driver shows is charged. */
#include "../gap.h"
#include "../guard.h"
#include "../real.h"
#include "../relaxed.h"

/* A load that is over the budget is undone, and leaves the output as it was. */
#define LOAD(symbol, type, output, devices, undo, parameters, given, ours)                                                         \
    CUresult symbol parameters                                                                                                     \
    {                                                                                                                              \
        struct growth growth;                                                                                                      \
        type loaded = output ? *output : NULL;                                                                                     \
        CUresult result;                                                                                                           \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol given;                                                                                              \
        growth_begin(&growth, devices);                                                                                            \
        do                                                                                                                         \
            result = real.symbol ours;                                                                                             \
        while (growth_again(&growth, result));                                                                                     \
        if (!growth_end(&growth, result, (uint64_t)(uintptr_t)loaded)) {                                                           \
            CUstreamCaptureMode mode = relaxed_enter();                                                                            \
            real.undo(loaded);                                                                                                     \
            relaxed_leave(mode);                                                                                                   \
            growth_undone(&growth);                                                                                                \
            return CUDA_ERROR_OUT_OF_MEMORY;                                                                                       \
        }                                                                                                                          \
        if (output)                                                                                                                \
            *output = loaded;                                                                                                      \
        return result;                                                                                                             \
    }

#define LOADED(output) ((output) ? &loaded : NULL)

LOAD(cuModuleLoad, CUmodule, module, GAP_CURRENT, cuModuleUnload, (CUmodule * module, const char *fname), (module, fname),
     (LOADED(module), fname))
LOAD(cuModuleLoadData, CUmodule, module, GAP_CURRENT, cuModuleUnload, (CUmodule * module, const void *image), (module, image),
     (LOADED(module), image))
LOAD(cuModuleLoadDataEx, CUmodule, module, GAP_CURRENT, cuModuleUnload,
     (CUmodule * module, const void *image, unsigned int options, CUjit_option *option, void **values),
     (module, image, options, option, values), (LOADED(module), image, options, option, values))
LOAD(cuModuleLoadFatBinary, CUmodule, module, GAP_CURRENT, cuModuleUnload, (CUmodule * module, const void *image), (module, image),
     (LOADED(module), image))

/* A library belongs to no context: it is loaded into each, at once or when it is used. */
LOAD(cuLibraryLoadData, CUlibrary, library, GAP_ALL, cuLibraryUnload,
     (CUlibrary * library, const void *code, CUjit_option *jit, void **jit_values, unsigned int jits, CUlibraryOption *option,
      void **values, unsigned int options),
     (library, code, jit, jit_values, jits, option, values, options),
     (LOADED(library), code, jit, jit_values, jits, option, values, options))
LOAD(cuLibraryLoadFromFile, CUlibrary, library, GAP_ALL, cuLibraryUnload,
     (CUlibrary * library, const char *name, CUjit_option *jit, void **jit_values, unsigned int jits, CUlibraryOption *option,
      void **values, unsigned int options),
     (library, name, jit, jit_values, jits, option, values, options),
     (LOADED(library), name, jit, jit_values, jits, option, values, options))

#define UNLOAD(symbol, type, devices)                                                                                              \
    CUresult symbol(type handle)                                                                                                   \
    {                                                                                                                              \
        struct shrink shrink;                                                                                                      \
                                                                                                                                   \
        if (!guard_acts(RESOLVE_VRAM))                                                                                             \
            return real.symbol(handle);                                                                                            \
        shrink_begin(&shrink, devices, (uint64_t)(uintptr_t)handle);                                                               \
        CUresult result = real.symbol(handle);                                                                                     \
        shrink_end(&shrink, result);                                                                                               \
        return result;                                                                                                             \
    }

UNLOAD(cuModuleUnload, CUmodule, GAP_CURRENT)
UNLOAD(cuLibraryUnload, CUlibrary, GAP_ALL)

/* What is linked lies on the host until it is loaded. Should the driver take memory for it all the same, that is charged and not refused: the
 * image belongs to the linker's state, and cannot be taken back. */
CUresult cuLinkComplete(CUlinkState state, void **cubinOut, size_t *sizeOut)
{
    struct growth growth;

    if (!guard_acts(RESOLVE_VRAM))
        return real.cuLinkComplete(state, cubinOut, sizeOut);
    growth_begin(&growth, GAP_CURRENT);
    CUresult result = real.cuLinkComplete(state, cubinOut, sizeOut);
    if (!growth_end(&growth, result, 0))
        growth_undone(&growth);
    return result;
}
