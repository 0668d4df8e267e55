"""Changes of images, one pixel at a time."""

import numpy as np


def bilinear(image, y, x):
    """The value at a real position, from the definition; 0 outside."""
    height, width = image.shape[:2]
    total = np.zeros(image.shape[2])
    for row in range(height):
        for column in range(width):
            weight = max(0.0, 1.0 - abs(y - row)) * max(0.0, 1.0 - abs(x - column))
            total += weight * image[row, column]
    return total


def affine(image, u, field, *, rotation, scale, shear, shift, size):
    """An image [h, w, c] under the map of six numbers u and a field [*size, 2]."""
    height, width = image.shape[:2]
    down, right = np.broadcast_to(shift, 2)
    turn = rotation * u[0]
    matrix = (
        np.diag(np.exp(np.multiply(scale, u[2:4])))
        @ [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        @ [[1.0, shear * u[1]], [0.0, 1.0]]
    )
    out = np.zeros((*size, image.shape[2]))
    for row in range(size[0]):
        for column in range(size[1]):
            # Pixel edges in 0..1 of the output are those of the input.
            y = (row + 0.5) / size[0] * height - height / 2
            x = (column + 0.5) / size[1] * width - width / 2
            y, x = matrix @ [y, x] + [down * height * u[4], right * width * u[5]]
            y += field[row, column, 0] * height / 2 + height / 2 - 0.5
            x += field[row, column, 1] * width / 2 + width / 2 - 0.5
            out[row, column] = bilinear(image, y, x)
    return out


def keys_cubic(distance):
    """Keys' kernel of cubic interpolation, a = -1/2."""
    d = abs(distance)
    if d < 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


def cubic_weights(old, new):
    """The weight [new, old] of each point of a coarse grid at each of a fine one."""
    weights = np.zeros((new, old))
    for i in range(new):
        for j in range(old):
            weights[i, j] = keys_cubic((i + 0.5) * old / new - 0.5 - j)
        weights[i] /= weights[i].sum()
    return weights


def cubic(grid, size):
    """A grid [h, w] interpolated to another size."""
    rows = cubic_weights(grid.shape[0], size[0])
    columns = cubic_weights(grid.shape[1], size[1])
    return rows @ grid @ columns.T


def thickness(image, t):
    """An image [h, w, c] blended with its dilation (t > 0) or faded (t < 0)."""
    out = np.zeros(image.shape)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            near = image[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            x = image[row, column]
            most = near.max(axis=(0, 1))
            out[row, column] = x + t * (most - x) if t > 0 else x * (1 + t)
    return out


def color(image, brightness, contrast, saturation):
    """An image [h, w, 3] with these three factors."""
    image = image * brightness
    mean = np.mean([grey(pixel) for row in image for pixel in row])
    image = mean + contrast * (image - mean)
    out = np.zeros(image.shape)
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            pixel = image[row, column]
            out[row, column] = grey(pixel) + saturation * (pixel - grey(pixel))
    return out.clip(0, 1)


def grey(pixel):
    """The brightness of a colour, ITU-R BT.601."""
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def runs(masked):
    """The (start, length) of each run of True in a row."""
    found, start = [], None
    for i, value in enumerate([*masked, False]):
        if value and start is None:
            start = i
        if not value and start is not None:
            found.append((start, i - start))
            start = None
    return found
