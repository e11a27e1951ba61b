#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace g2sd {

using Bytes = std::vector<std::uint8_t>;

/// The same bytes as text, without looking at their encoding.
inline std::string text_of(const Bytes& bytes) {
    return {bytes.begin(), bytes.end()};
}

}  // namespace g2sd
