# The C types of protobuf_fields.py in the compiled form (setup.py); the Python file has the code and says what it does.
cimport cython

cdef int _KEY
cdef int _VALUE
cdef int _TEXT
cdef int _BOOL
cdef int _INT
cdef int _NUMBER
cdef int _ARRAY
cdef int _PAIRS
cdef int _BYTES

@cython.locals(tag=int, start=Py_ssize_t, end=Py_ssize_t, _=Py_ssize_t)
cpdef (Py_ssize_t, Py_ssize_t) key_of(bytes body, Py_ssize_t at, Py_ssize_t stop)

@cython.locals(start=Py_ssize_t, end=Py_ssize_t, key=str)
cpdef bint add_attribute(bytes body, Py_ssize_t at, Py_ssize_t stop, dict values) except? False

@cython.locals(tag=int, _=Py_ssize_t)
cpdef bint is_scalar(bytes body, Py_ssize_t at, Py_ssize_t stop) except? False

@cython.locals(tag=int, start=Py_ssize_t)
cpdef any_value(bytes body, Py_ssize_t at, Py_ssize_t stop)

@cython.locals(tag=int, kind=int, length=Py_ssize_t, begin=Py_ssize_t, end=Py_ssize_t)
cpdef (int, Py_ssize_t, Py_ssize_t) field(bytes body, Py_ssize_t at, Py_ssize_t stop)

@cython.locals(last=Py_ssize_t)
cdef Py_ssize_t _varint_end(bytes body, Py_ssize_t at, Py_ssize_t stop) except? -1

@cython.locals(value=Py_ssize_t)
cdef Py_ssize_t _varint(bytes body, Py_ssize_t at, Py_ssize_t end) except? -1

@cython.locals(value=cython.ulonglong, place=Py_ssize_t)
cpdef unsigned long long fixed64(bytes body, Py_ssize_t at) except? 0
