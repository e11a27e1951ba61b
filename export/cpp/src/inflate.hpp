#pragma once

#include <cstddef>
#include <cstdint>

#include "bytes.hpp"

namespace g2sd {

enum class Deflate { raw, zlib };

/// Decompress to exactly `wanted` bytes. Throws UserError where the data are damaged or give another number of bytes.
Bytes inflated(const std::uint8_t* data, std::size_t size, std::size_t wanted, Deflate form);

/// CRC-32 as PNG and ZIP have it.
std::uint32_t crc32_of(const std::uint8_t* data, std::size_t size);

}  // namespace g2sd
