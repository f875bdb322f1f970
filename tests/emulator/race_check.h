// What ThreadSanitizer has to be told so that it finds races between the threads of a GPU: each
// fiber is a thread of its own, and nothing orders two of them but barriers (SyncBlock, SyncWarp)
// and fences. Warp operations that only exchange registers order no memory. Kernels are compiled
// with -fsanitize=thread, the emulator is not. Without LORAD_RACE_CHECK all of this is nothing.
#pragma once

#include <cstddef>

#if defined(LORAD_RACE_CHECK)
#include <sanitizer/tsan_interface.h>

extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
void __tsan_read16(void* at);
void __tsan_write16(void* at);
}
#endif

namespace lorad::emulator::race_check {

#if defined(LORAD_RACE_CHECK)

inline void* NewThread() { return __tsan_create_fiber(0); }
inline void EndThread(void* thread) { __tsan_destroy_fiber(thread); }
inline void* ThisThread() { return __tsan_get_current_fiber(); }
// Immediately before the switch.
inline void SwitchTo(void* thread) {
  __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync);
}
// What was done before a Publish of `place` comes before what is done after a Take of it.
inline void Publish(void* place) { __tsan_release(place); }
inline void Take(void* place) { __tsan_acquire(place); }

// An access of this thread that is not in instrumented code.
inline void Read16(const void* at) { __tsan_read16(const_cast<void*>(at)); }
inline void Write16(void* at) { __tsan_write16(at); }

// The emulator's own books, and what the library does for them, are no part of the kernel.
class Uninvolved {
 public:
  Uninvolved() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Uninvolved() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  Uninvolved(const Uninvolved&) = delete;
  Uninvolved& operator=(const Uninvolved&) = delete;
};

#else

inline void* NewThread() { return nullptr; }
inline void EndThread(void*) {}
inline void* ThisThread() { return nullptr; }
inline void SwitchTo(void*) {}
inline void Publish(void*) {}
inline void Take(void*) {}
inline void Read16(const void*) {}
inline void Write16(void*) {}
struct Uninvolved {
  Uninvolved() {}  // so that an object of it is not unused
};

#endif

}  // namespace lorad::emulator::race_check
