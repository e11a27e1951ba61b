#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>

#include "bytes.hpp"
#include "image.hpp"

namespace g2sd {

/// Width and height of a file that does not say them.
struct RawSize {
    std::size_t width = 0;
    std::size_t height = 0;
};

/// PNG of any colour type, depth and interlacing; an alpha channel is dropped. Throws UserError.
Image decoded_png(const Bytes& file);

/// Binary PGM (P5) or PPM (P6) with values up to 255. Throws UserError.
Image decoded_pnm(const Bytes& file);

/// What the file's first bytes say it is; with `raw`, pixels of uint8 [height, width, channels] and nothing else.
///
/// Throws UserError, naming the file.
Image load_image(const std::filesystem::path& path, std::size_t raw_channels, const std::optional<RawSize>& raw);

}  // namespace g2sd
