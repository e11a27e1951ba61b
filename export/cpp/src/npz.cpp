#include "npz.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <sstream>
#include <string_view>
#include <utility>

#include "error.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

struct Header {
    std::string dtype;
    std::vector<std::size_t> shape;
    std::size_t data_at = 0;
};

/// The Python dictionary that describes the array, and where the data start.
std::pair<std::string, std::size_t> dictionary_of(const Bytes& file) {
    constexpr std::string_view magic = "\x93NUMPY";
    constexpr std::size_t fixed = 8;  // the magic string and two bytes of version
    const std::size_t width = file.size() > fixed && file[6] == 1 ? 2 : 4;
    if (file.size() < fixed + width || std::memcmp(file.data(), magic.data(), magic.size()) != 0) {
        throw UserError("it is no array of numpy");
    }
    std::size_t length = 0;
    for (std::size_t index = width; index > 0; --index) {
        length = length << 8U | file[fixed + index - 1];
    }
    const std::size_t start = fixed + width;
    if (file.size() - start < length) {
        throw UserError("it is truncated");
    }
    const auto* text = file.data() + start;
    return {std::string(text, text + length), start + length};
}

/// What stands in the text from `before` up to `after`. Throws UserError where it is not there.
std::string between(const std::string& text, std::string_view before, char after) {
    const std::size_t found = text.find(before);
    const std::size_t start = found + before.size();
    const std::size_t end = found == std::string::npos ? found : text.find(after, start);
    if (end == std::string::npos) {
        throw UserError("its header cannot be read, or it is in Fortran's order: " + one_line(text));
    }
    return text.substr(start, end - start);
}

std::vector<std::size_t> shape_from(std::string listed) {
    std::replace(listed.begin(), listed.end(), ',', ' ');
    std::istringstream in(listed);
    std::vector<std::size_t> shape;
    for (std::size_t dim = 0; in >> dim;) {
        shape.push_back(dim);
    }
    if (!in.eof()) {
        throw UserError("its shape cannot be read: " + listed);
    }
    return shape;
}

Header header_of(const Bytes& file) {
    const auto [text, data_at] = dictionary_of(file);
    between(text, "'fortran_order': False", ',');
    return {between(text, "'descr': '", '\''), shape_from(between(text, "'shape': (", ')')), data_at};
}

std::size_t count_of(const std::vector<std::size_t>& shape, std::size_t most) {
    std::size_t count = 1;
    for (const std::size_t dim : shape) {
        if (dim != 0 && count > most / dim) {
            throw UserError("it is truncated");
        }
        count *= dim;
    }
    return count;
}

template <typename Type>
Array<Type> array_of(const ZipArchive& archive, const std::string& name, const std::string& dtype) {
    const Bytes file = archive.read(name + ".npy");
    try {
        const Header header = header_of(file);
        if (header.dtype != dtype) {
            throw UserError("it is of type " + header.dtype + ", wanted " + dtype);
        }
        const std::size_t held = file.size() - header.data_at;
        Array<Type> array{header.shape, std::vector<Type>(count_of(header.shape, held))};
        if (array.values.size() * sizeof(Type) != held) {
            throw UserError(concat("it holds ", held, " bytes, wanted ", array.values.size() * sizeof(Type)));
        }
        if (held > 0) {
            std::memcpy(array.values.data(), file.data() + header.data_at, held);
        }
        return array;
    } catch (const UserError& error) {
        throw UserError(name + ": " + error.what());
    }
}

}  // namespace

static_assert(sizeof(float) == 4 && std::numeric_limits<float>::is_iec559);

Array<std::uint8_t> NpzFile::bytes(const std::string& name) const {
    return array_of<std::uint8_t>(archive_, name, "|u1");
}

Array<float> NpzFile::floats(const std::string& name) const {
    return array_of<float>(archive_, name, "<f4");
}

}  // namespace g2sd
