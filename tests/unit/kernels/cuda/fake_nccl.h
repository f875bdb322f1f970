// FakeNccl: NCCL's functions over emulated devices. An exchange is a kernel on the rank's stream
// whose one working thread waits for the other ranks' kernels. Emulated streams run only when
// somebody waits for them, so while a rank waits in an exchange, threads of the fake drive the
// others' streams.
#pragma once

#include <vector>

#include "kernels/cuda/nccl_api.h"
#include "kernels/cuda/runtime.h"

namespace lorad::kernels::cuda {

class FakeNccl {
 public:
  // `devices[i]` is the device with number i. One at a time, with one group; outlives what uses its
  // functions.
  explicit FakeNccl(std::vector<Runtime*> devices);
  ~FakeNccl();

  NcclApi api() const;
  int exchanges() const;   // that rank 0 has taken part in
  int open_comms() const;  // neither destroyed nor aborted
  void FailNextGather();   // on any rank
  void FailConnecting();
};

}  // namespace lorad::kernels::cuda
