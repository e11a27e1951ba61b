#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "bytes.hpp"

namespace g2sd {

/// SHA-256 of a stream of bytes. Source: FIPS 180-4, sections 4.1.2, 5 and 6.2.
class Sha256 {
  public:
    void update(const std::uint8_t* bytes, std::size_t size);
    /// 64 hexadecimal digits; nothing may be added afterwards.
    std::string hex();

  private:
    void compress(const std::uint8_t* block);

    std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> pending_{};
    std::uint64_t num_bytes_ = 0;
};

std::string sha256_of(const Bytes& content);

}  // namespace g2sd
