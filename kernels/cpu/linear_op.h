// LinearOp: y (+)= x W^T + bias and the adapters' low-rank parts, cut into the tasks of KernelTable
// and run on the backend's threads in at most three parallel regions: convert the activations (if
// there are many), then base GEMM and shrink together, then expand if any row has an adapter.
// Without segments it is the plain GEMM.
//
// Thread: the backend's one caller. Scratch grows to the largest call and stays.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/host_tensor.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"

namespace lorad::kernels::cpu {

class LinearOp {
 public:
  LinearOp(const KernelTable& kernels, ThreadPool& pool);

  void Run(const LinearArgs& args, const PageSlab& slab);

 private:
  // How the GEMM is cut: groups of panels by groups of rows.
  struct Cut {
    int panels;  // of a group
    int column_groups;
    int row_groups;
    int tiles() const { return column_groups * row_groups; }
  };

  Activations Convert(const HostTensor& x, int rows);
  Cut CutGemm(int rows, int panels) const;
  // Fills shrinks_ and expands_.
  void CutAdapters(const LinearArgs& args, const Activations& x, const PageSlab& slab);
  void CutModule(const AdapterSegment& segment, const AdapterModule& module,
                 const PagedImage& image, const Activations& x, HostTensor& y, float* t);
  std::byte* Element(const Activations& a, int row) const;

  const KernelTable& kernels_;
  ThreadPool& pool_;
  size_t element_bytes_;
  HostMemory activations_;   // [rows, padded inputs]
  HostMemory shrunk_;        // for each segment and module [rows, rank], fp32
  HostMemory gemm_scratch_;  // [threads, kernels_.gemm_scratch_floats]
  std::vector<ShrinkTask> shrinks_;
  std::vector<ExpandTask> expands_;
};

}  // namespace lorad::kernels::cpu
