#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "error.hpp"
#include "image_file.hpp"
#include "inflate.hpp"
#include "text.hpp"

// Source: PNG specification, third edition. Pixels of 16 bits are reduced as Pillow reduces them, see eight_bits.

namespace g2sd {
namespace {

constexpr std::size_t most_bytes = std::size_t{1} << 29U;  // of pixels; a file of a few kilobytes can claim terabytes

// Colour types.
constexpr std::uint8_t grey = 0;
constexpr std::uint8_t palette = 3;
constexpr std::uint8_t grey_alpha = 4;
constexpr std::uint8_t rgb_alpha = 6;

std::size_t big_endian(const std::uint8_t* at) {
    return std::size_t{at[0]} << 24U | std::size_t{at[1]} << 16U | std::size_t{at[2]} << 8U | at[3];
}

struct Header {
    std::size_t width = 0;
    std::size_t height = 0;
    unsigned depth = 0;
    std::uint8_t colour = 0;
    bool interlaced = false;

    std::size_t samples() const {
        constexpr std::array<std::size_t, 7> counts{1, 0, 3, 1, 2, 0, 4};
        return counts.at(colour);
    }
    std::size_t row_bytes(std::size_t columns) const { return (columns * samples() * depth + 7) / 8; }
    /// Distance, in bytes, to the byte that a filter compares with.
    std::size_t step() const { return std::max<std::size_t>(samples() * depth / 8, 1); }
};

Header header_from(const std::uint8_t* at) {
    Header header{big_endian(at), big_endian(at + 4), at[8], at[9], at[12] == 1};
    const bool known_colour = header.colour <= rgb_alpha && header.colour != 1 && header.colour != 5;
    constexpr std::array<unsigned, 5> depths{1, 2, 4, 8, 16};
    const bool known_depth = std::find(depths.begin(), depths.end(), header.depth) != depths.end();
    const bool fits = header.colour == grey || (header.colour == palette ? header.depth <= 8 : header.depth >= 8);
    if (!known_colour || !known_depth || !fits || at[10] != 0 || at[11] != 0 || at[12] > 1) {
        throw UserError("is a PNG of an unknown kind");
    }
    if (header.width == 0 || header.height == 0 || header.width > most_bytes / header.height / 8) {
        throw UserError(concat("is a PNG of ", header.width, " x ", header.height, " pixels, which no image has"));
    }
    return header;
}

/// The parts of the file that matter.
struct Contents {
    Header header;
    Bytes colours;
    Bytes packed;
};

void take(const std::string& kind, const std::uint8_t* data, std::size_t size, Contents& contents) {
    if (kind == "IHDR" && size == 13) {
        contents.header = header_from(data);
    } else if (kind == "PLTE") {
        contents.colours.assign(data, data + size);
    } else if (kind == "IDAT") {
        contents.packed.insert(contents.packed.end(), data, data + size);
    }
}

Contents contents_of(const Bytes& file) {
    constexpr std::size_t signature = 8;
    constexpr std::size_t around = 12;  // length, kind and checksum
    Contents contents;
    for (std::size_t at = signature; at + around <= file.size();) {
        const std::uint8_t* chunk = file.data() + at;
        const std::size_t size = big_endian(chunk);
        if (size > file.size() - at - around) {
            break;
        }
        const std::string kind(chunk + 4, chunk + 8);
        if (crc32_of(chunk + 4, size + 4) != big_endian(chunk + 8 + size)) {
            throw UserError("is a damaged PNG: the checksum of " + kind + " is wrong");
        }
        if (kind == "IEND" && contents.header.width > 0) {
            return contents;
        }
        take(kind, chunk + 8, size, contents);
        at += size + around;
    }
    throw UserError("is a truncated PNG");
}

std::uint8_t paeth(int left, int up, int corner) {
    const int estimate = left + up - corner;
    const int to_left = std::abs(estimate - left);
    const int to_up = std::abs(estimate - up);
    const int to_corner = std::abs(estimate - corner);
    if (to_left <= to_up && to_left <= to_corner) {
        return static_cast<std::uint8_t>(left);
    }
    return static_cast<std::uint8_t>(to_up <= to_corner ? up : corner);
}

/// What a filter predicts for a byte from those to the left, above, and above to the left.
unsigned predicted(std::uint8_t filter, unsigned left, unsigned up, unsigned corner) {
    switch (filter) {
        case 0:
            return 0;
        case 1:
            return left;
        case 2:
            return up;
        case 3:
            return (left + up) / 2;
        case 4:
            return paeth(static_cast<int>(left), static_cast<int>(up), static_cast<int>(corner));
        default:
            throw UserError("is a damaged PNG: a row has an unknown filter");
    }
}

void unfilter(std::uint8_t filter, std::uint8_t* row, const Bytes& above, std::size_t step) {
    for (std::size_t i = 0; i < above.size(); ++i) {
        const unsigned left = i < step ? 0 : row[i - step];
        const unsigned corner = i < step ? 0 : above[i - step];
        row[i] = static_cast<std::uint8_t>(row[i] + predicted(filter, left, above[i], corner));
    }
}

/// Every n-th column and row from the first on.
struct Pass {
    std::size_t x0, y0, dx, dy;

    std::size_t columns(const Header& header) const {
        return header.width <= x0 ? 0 : (header.width - x0 + dx - 1) / dx;
    }
    std::size_t rows(const Header& header) const {
        return columns(header) == 0 || header.height <= y0 ? 0 : (header.height - y0 + dy - 1) / dy;
    }
};

std::vector<Pass> passes_of(const Header& header) {
    if (!header.interlaced) {
        return {{0, 0, 1, 1}};
    }
    return {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
}

unsigned sample(const std::uint8_t* row, std::size_t index, unsigned depth) {
    if (depth == 16) {
        return unsigned{row[2 * index]} << 8U | row[2 * index + 1];
    }
    const std::size_t bit = index * depth;
    return (unsigned{row[bit / 8]} >> (8 - depth - bit % 8)) & ((1U << depth) - 1);
}

/// Grey of 16 bits is scaled and rounded, which is what the Python package does; other 16-bit colours lose their low
/// byte.
std::uint8_t eight_bits(unsigned value, const Header& header) {
    if (header.depth == 16) {
        return static_cast<std::uint8_t>(header.colour == grey ? (value + 128) / 257 : value >> 8U);
    }
    return static_cast<std::uint8_t>(value * 255U / ((1U << header.depth) - 1));
}

void write_pixel(const Contents& contents, const std::uint8_t* row, std::size_t column, std::uint8_t* out) {
    const Header& header = contents.header;
    if (header.colour == palette) {
        const std::size_t entry = std::size_t{sample(row, column, header.depth)} * 3;
        if (entry + 3 > contents.colours.size()) {
            throw UserError("is a damaged PNG: a pixel has a colour that the palette lacks");
        }
        std::copy_n(contents.colours.data() + entry, 3, out);
        return;
    }
    const std::size_t kept = header.samples() < 3 ? 1 : 3;
    for (std::size_t i = 0; i < kept; ++i) {
        out[i] = eight_bits(sample(row, column * header.samples() + i, header.depth), header);
    }
}

std::size_t unpacked_bytes(const Header& header) {
    std::size_t total = 0;
    for (const Pass& pass : passes_of(header)) {
        total += pass.rows(header) * (1 + header.row_bytes(pass.columns(header)));
    }
    return total;
}

/// Unfilter one pass and spread its pixels; where the next pass starts.
std::uint8_t* draw(const Contents& contents, const Pass& pass, std::uint8_t* data, Image& image) {
    const std::size_t columns = pass.columns(contents.header);
    Bytes above(contents.header.row_bytes(columns), 0);
    for (std::size_t y = 0; y < pass.rows(contents.header); ++y) {
        std::uint8_t* row = data + 1;
        unfilter(*data, row, above, contents.header.step());
        for (std::size_t x = 0; x < columns; ++x) {
            write_pixel(contents, row, x, image.at(pass.x0 + x * pass.dx, pass.y0 + y * pass.dy));
        }
        std::copy_n(row, above.size(), above.data());
        data += 1 + above.size();
    }
    return data;
}

}  // namespace

Image decoded_png(const Bytes& file) {
    const Contents contents = contents_of(file);
    const Header& header = contents.header;
    Bytes rows = inflated(contents.packed.data(), contents.packed.size(), unpacked_bytes(header), Deflate::zlib);
    const bool is_grey = header.colour == grey || header.colour == grey_alpha;
    Image image = blank_image(header.width, header.height, is_grey ? 1 : 3);
    std::uint8_t* data = rows.data();
    for (const Pass& pass : passes_of(header)) {
        data = draw(contents, pass, data, image);
    }
    return image;
}

}  // namespace g2sd
