# The C types of json_usual.py in the compiled form (setup.py); the Python file has the code and says what it does.
cimport cython

cdef int _DEEPEST
cdef int _MOST_DIGITS
cdef int _QUOTE
cdef int _COMMA
cdef int _MINUS
cdef int _POINT
cdef int _ZERO
cdef int _NINE
cdef int _COLON
cdef int _OPEN_LIST
cdef int _BACKSLASH
cdef int _CLOSE_LIST
cdef int _OPEN
cdef int _CLOSE
cdef int _RESOURCE
cdef int _SCOPE
cdef int _RECORD
cdef int _PAIR
cdef int _ANY
cdef bytes _BLANKS

cdef bint _is_utf8(bytes body) except? False

@cython.final
cdef class UsualLogs:
    cdef Py_ssize_t _arrays
    cdef const unsigned char* _blanks
    cdef bytes _body
    cdef Py_ssize_t _commas
    cdef bint _escaped
    cdef object _hint
    cdef bytes _mark
    cdef bint _marked
    cdef bint _names_only
    cdef Py_ssize_t _objects
    cdef Py_ssize_t _offset
    cdef const unsigned char* _plain
    cdef bytes _plain_bytes
    cdef Py_ssize_t _records
    cdef object _resource
    cdef object _scope
    cdef Py_ssize_t _stop
    cdef object _tally
    cdef const unsigned char* _text
    cdef bytes _text_bytes
    cdef public list found

    @cython.locals(at=Py_ssize_t, needed=Py_ssize_t)
    cpdef bint find(self, Py_ssize_t most) except? False

    @cython.locals(after=Py_ssize_t, ended=Py_ssize_t)
    cdef Py_ssize_t _list(self, Py_ssize_t at, int kind, int depth) except? -1

    @cython.locals(begin=Py_ssize_t)
    cdef Py_ssize_t _group(self, Py_ssize_t at, int kind) except? -1

    cdef Py_ssize_t _described(self, Py_ssize_t at) except? -1
    cdef Py_ssize_t _schema(self, Py_ssize_t at) except? -1

    @cython.locals(begin=Py_ssize_t, escaped=bint)
    cdef Py_ssize_t _log_record(self, Py_ssize_t at) except? -1

    @cython.locals(marked=bint)
    cdef Py_ssize_t _pair(self, Py_ssize_t at) except? -1

    @cython.locals(begin=Py_ssize_t, after=Py_ssize_t, ended=Py_ssize_t)
    cdef Py_ssize_t _object(self, Py_ssize_t at, int kind, int depth) except? -1

    @cython.locals(first=int)
    cdef Py_ssize_t _value(self, Py_ssize_t at, int depth) except? -1

    @cython.locals(text='const unsigned char*', byte=int, plain='const unsigned char*')
    cdef Py_ssize_t _string(self, Py_ssize_t at) except? -1

    @cython.locals(begin=Py_ssize_t, fraction=Py_ssize_t)
    cdef Py_ssize_t _number(self, Py_ssize_t at) except? -1

    @cython.locals(text='const unsigned char*')
    cdef Py_ssize_t _digits(self, Py_ssize_t at) noexcept

    cdef Py_ssize_t _name(self, Py_ssize_t at, bytes name) except? -1
    cdef Py_ssize_t _expect(self, Py_ssize_t at, int byte) noexcept
    cdef bint _is(self, Py_ssize_t at, int byte) noexcept

    @cython.locals(text='const unsigned char*', blank='const unsigned char*')
    cdef Py_ssize_t _blank(self, Py_ssize_t at) noexcept
