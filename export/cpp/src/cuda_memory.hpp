#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "error.hpp"
#include "text.hpp"

namespace g2sd {

inline void check_cuda(cudaError_t status) {
    if (status != cudaSuccess) {
        throw UserError(concat("TensorRT needs a working NVIDIA GPU, and CUDA says: ", cudaGetErrorString(status)));
    }
}

/// A queue of work of the GPU.
class CudaStream {
  public:
    CudaStream() { check_cuda(cudaStreamCreate(&stream_)); }
    CudaStream(const CudaStream&) = delete;
    CudaStream(CudaStream&&) = delete;
    CudaStream& operator=(const CudaStream&) = delete;
    CudaStream& operator=(CudaStream&&) = delete;
    ~CudaStream() { cudaStreamDestroy(stream_); }

    cudaStream_t get() const { return stream_; }
    /// Return when everything queued so far is done.
    void wait() const { check_cuda(cudaStreamSynchronize(stream_)); }

  private:
    cudaStream_t stream_ = nullptr;
};

/// Memory of the GPU that only grows.
class CudaBuffer {
  public:
    CudaBuffer() = default;
    CudaBuffer(const CudaBuffer&) = delete;
    CudaBuffer(CudaBuffer&&) = delete;
    CudaBuffer& operator=(const CudaBuffer&) = delete;
    CudaBuffer& operator=(CudaBuffer&&) = delete;
    ~CudaBuffer() { cudaFree(address_); }

    void* room_for(std::size_t num_bytes) {
        if (num_bytes > size_) {
            check_cuda(cudaFree(address_));
            address_ = nullptr;
            size_ = 0;
            check_cuda(cudaMalloc(&address_, num_bytes));
            size_ = num_bytes;
        }
        return address_;
    }

  private:
    void* address_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace g2sd
