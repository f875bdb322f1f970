// Marks for code that both a host compiler and nvcc read.
#pragma once

#if defined(__CUDACC__)
#define LORAD_HOST_DEVICE __host__ __device__
#else
#define LORAD_HOST_DEVICE
#endif
