// The library's version, the same as the Python package's.
#pragma once

#define NSRT_VERSION_MAJOR 0
#define NSRT_VERSION_MINOR 1
#define NSRT_VERSION_PATCH 0
#define NSRT_VERSION_STRING "0.1.0"
